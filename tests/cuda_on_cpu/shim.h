// Just enough of CUDA for our kernels to compile as C++ and run on a CPU, strictly.
//
// Every thread of a block is a fiber, so __syncthreads is a real barrier: a fiber runs until it meets one, and the next
// round starts when all have, in the opposite order. Threads that do not all meet at the same barrier are an error.
// Shared memory is filled with NaN before each block. Arrays lie before a page that must not be touched, and indices of
// arrays of known size are checked, so that reading or writing out of bounds is an error too.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <type_traits>
#include <utility>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shared_memory")))
#define __syncthreads() shim::barrier(__LINE__)

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
static inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace shim {

enum { STACK = 64 * 1024, MOST_THREADS = 1024, LAUNCHED = 0, DIVERGED = 1, FAULT = 2 };

struct Fiber {
    ucontext_t context;  // to start it
    jmp_buf place;       // to go on with it: much faster than changing contexts
    bool started;
    int line;  // of the barrier at which it waits; 0 when its thread has ended and it is ready for another
};

static Fiber fibers[MOST_THREADS];
static char* stacks;
static jmp_buf scheduler;
static Fiber* current;
static void (*run_thread)(void*);
static void* thread_argument;
static sigjmp_buf before_fault;
static char message[256];

static void barrier(int line)
{
    Fiber* me = current;
    me->line = line;
    if (!_setjmp(me->place)) _longjmp(scheduler, 1);
}

static void thread_main()
{
    for (;;) {
        run_thread(thread_argument);
        barrier(0);
    }
}

static __attribute__((noinline)) void resume(Fiber* fiber, char* stack)
{
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, thread_main, 0);
    setcontext(&fiber->context);
}

static int run_block()
{
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    if (__start_shared_memory) memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    for (unsigned round = 0;; round++) {
        for (unsigned j = 0; j < count; j++) {
            const unsigned i = round % 2 ? count - 1 - j : j;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
            resume(&fibers[i], stacks + (size_t)i * STACK);
        }
        for (unsigned i = 1; i < count; i++)
            if (fibers[i].line != fibers[0].line) {
                snprintf(message, sizeof message, "block (%u, %u, %u): one thread is at line %d, another at line %d",
                         blockIdx.x, blockIdx.y, blockIdx.z, fibers[0].line, fibers[i].line);
                return DIVERGED;
            }
        if (fibers[0].line == 0) return LAUNCHED;
    }
}

static void on_fault(int number, siginfo_t*, void*)
{
    snprintf(message, sizeof message, "signal %d in block (%u, %u, %u), thread (%u, %u, %u)", number, blockIdx.x,
             blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    siglongjmp(before_fault, 1);
}

static int run_grid()
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    static char handler_stack[64 * 1024];
    struct sigaction action = {}, previous[5];
    stack_t alternative = {}, previous_stack;
    if (!stacks) stacks = (char*)malloc((size_t)STACK * MOST_THREADS);
    alternative.ss_sp = handler_stack;
    alternative.ss_size = sizeof handler_stack;
    sigaltstack(&alternative, &previous_stack);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(signals[i], &action, &previous[i]);
    volatile int status = LAUNCHED;
    if (sigsetjmp(before_fault, 1)) {
        status = FAULT;
    } else {
        for (blockIdx.z = 0; blockIdx.z < gridDim.z && status == LAUNCHED; blockIdx.z++)
            for (blockIdx.y = 0; blockIdx.y < gridDim.y && status == LAUNCHED; blockIdx.y++)
                for (blockIdx.x = 0; blockIdx.x < gridDim.x && status == LAUNCHED; blockIdx.x++) status = run_block();
    }
    if (status != LAUNCHED)  // their threads are not at an end
        for (Fiber& fiber : fibers) fiber.started = false;
    for (int i = 0; i < 5; i++) sigaction(signals[i], &previous[i], nullptr);
    sigaltstack(&previous_stack, nullptr);
    return status;
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;
};

template <class... A>
static int launch(void (*kernel)(A...), const unsigned* sizes, void** arguments)
{
    static Call<A...> one;
    one = {kernel, arguments};
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    thread_argument = &one;
    run_thread = [](void* pointer) {
        auto* what = static_cast<Call<A...>*>(pointer);
        call(what->kernel, what->arguments, std::index_sequence_for<A...>());
    };
    return run_grid();
}

// What a kernel takes, one character an argument as NumPy names types; capitals do not occur, 'P' precedes a pointer.
template <class T>
constexpr char code()
{
    return std::is_same<T, bool>::value        ? '?'
           : std::is_same<T, int>::value       ? 'i'
           : std::is_same<T, long long>::value ? 'q'
           : std::is_same<T, float>::value     ? 'f'
           : std::is_same<T, double>::value    ? 'd'
                                               : '!';
}

template <class... A>
static const char* signature(void (*)(A...))
{
    static char text[2 * sizeof...(A) + 1];
    char* end = text;
    ((std::is_pointer<A>::value ? *end++ = 'P' : 0, *end++ = code<std::remove_const_t<std::remove_pointer_t<A>>>()), ...);
    *end = 0;
    return text;
}

}  // namespace shim

extern "C" const char* shim_message() { return shim::message; }

// Memory that ends where a region begins that must not be touched, as must not one in front of it; what lies between
// that and the memory, less than a page, is NaN.
static const size_t forbidden = 16 << 20;

extern "C" void* guarded_new(size_t bytes, size_t* before)
{
    const size_t page = sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    char* start = (char*)mmap(nullptr, room + 2 * forbidden, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == (char*)MAP_FAILED) return nullptr;
    start += forbidden;
    if (room) mprotect(start, room, PROT_READ | PROT_WRITE);
    memset(start, 0xff, room);
    *before = room - bytes;
    return start + room - bytes;
}

extern "C" void guarded_free(void* pointer, size_t bytes)
{
    const size_t page = sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    munmap((char*)pointer - (room - bytes) - forbidden, room + 2 * forbidden);
}
