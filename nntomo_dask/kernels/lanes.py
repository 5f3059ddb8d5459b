"""SIMD lanes for Numba: one value that holds the same quantity for many slices.

The kernels of this folder do the same arithmetic for 8 to 64 slices (or filters × slices) at once. Numba has no type
for this. Its arrays are in memory, so an accumulator in an array costs a load and a store in every step. This module
adds the type `Lanes` to Numba: a fixed number of float32 values that LLVM keeps in vector registers.

A multiply-add is the `fma` of LLVM, with one rounding, for every width. So the value of a slice does not depend on how
many other slices are computed with it.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)

# Masks of the two rows of a pair that exchange elements which are 1, then 2, then 4 apart.
_TRANSPOSITION = [
    [[k + 8 - d if k & d else k for k in range(8)], [k + 8 if k & d else k + d for k in range(8)]] for d in (1, 2, 4)
]


class Lanes(types.Type):
    """A vector of `width` float32 values."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_FLOAT, fe_type.width))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, width: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.gep(data, [index])
    return builder.bitcast(first, ir.VectorType(_FLOAT, width).as_pointer())


def _splat(builder: Any, value: Any, width: int) -> Any:
    vector = builder.insert_element(ir.Constant(ir.VectorType(value.type, width), ir.Undefined), value, _INT(0))
    mask = ir.Constant(ir.VectorType(_INT, width), [0] * width)
    return builder.shuffle_vector(vector, vector, mask)


def _constant(value: float, width: int) -> Any:
    return ir.Constant(ir.VectorType(_FLOAT, width), [float(np.float32(value))] * width)


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = arguments[0].type
    suffix = f"v{kind.count}f32"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(arguments)), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, arguments)


@intrinsic(prefer_literal=True)
def fill(typingctx: Any, value: Any, width: Any) -> Any:
    """`width` lanes with the same `value`."""
    n = width.literal_value

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], n)

    return Lanes(n)(types.float32, width), codegen


@intrinsic(prefer_literal=True)
def load(typingctx: Any, array: Any, index: Any, width: Any) -> Any:
    """The lanes `array[index : index + width]` of a flat float32 array. Bounds are not checked."""
    n = width.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], n), align=4)

    return Lanes(n)(array, types.intp, width), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Write lanes to `array[index : index + width]` of a flat float32 array. Bounds are not checked."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], signature.args[2].width)
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def store_apart(typingctx: Any, array: Any, index: Any, step: Any, lanes: Any, width: Any) -> Any:
    """Write each `width` lanes in turn to `array[index + k * step :]` of a flat float32 array, k = 0, 1, ….

    Bounds are not checked.
    """
    n = width.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = signature.args[3].width // n
        for k in range(count):
            mask = ir.Constant(ir.VectorType(_INT, n), list(range(k * n, (k + 1) * n)))
            part = builder.shuffle_vector(args[3], args[3], mask)
            place = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, k)))
            builder.store(part, _pointer(context, builder, signature.args[0], args[0], place, n), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes, width), codegen


@intrinsic(prefer_literal=True)
def store_transposed(typingctx: Any, source: Any, index: Any, step: Any, target: Any, place: Any, stride: Any) -> Any:
    """Write 8 × 8 values transposed: from 8 pixels with 8 slices each to 8 slices with 8 pixels each.

    ``target[place + s * stride + p] = source[index + p * step + s]`` for p and s in 0 … 7. The arrays are flat float32
    arrays; bounds are not checked. Three rounds of register shuffles replace 64 scalar stores.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, step_value, start, stride_value = args[1], args[2], args[4], args[5]

        def at(which: int, base: Any, distance: Any, k: int) -> Any:
            offset = builder.add(base, builder.mul(distance, ir.Constant(distance.type, k)))
            return _pointer(context, builder, signature.args[which], args[which], offset, 8)

        rows = [builder.load(at(0, first, step_value, p), align=4) for p in range(8)]
        for masks, distance in zip(_TRANSPOSITION, (1, 2, 4), strict=True):
            pairs = [(k, k + distance) for k in range(8) if not k & distance]
            for low, high in pairs:
                left, right = rows[low], rows[high]
                rows[low], rows[high] = (
                    builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INT, 8), mask)) for mask in masks
                )
        for s, row in enumerate(rows):
            builder.store(row, at(3, start, stride_value, s), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), codegen


@intrinsic
def fma(typingctx: Any, factor: Any, lanes: Any, addend: Any) -> Any:
    """`factor * lanes + addend` with one rounding. `factor` is lanes, or one float32 for all lanes."""
    by_lane = isinstance(factor, Lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factors = args[0] if by_lane else _splat(builder, args[0], signature.args[1].width)
        return _call(builder, "fma", factors, args[1], args[2])

    return lanes(factor if by_lane else types.float32, lanes, addend), codegen


@intrinsic
def add(typingctx: Any, left: Any, right: Any) -> Any:
    """The sum of two vectors, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return left(left, right), codegen


@intrinsic
def subtract(typingctx: Any, left: Any, right: Any) -> Any:
    """`left - right`, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(args[0], args[1])

    return left(left, right), codegen


@intrinsic
def multiply(typingctx: Any, factor: Any, lanes: Any) -> Any:
    """`factor * lanes`. `factor` is lanes, or one float32 for all lanes."""
    by_lane = isinstance(factor, Lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0] if by_lane else _splat(builder, args[0], lanes.width), args[1])

    return lanes(factor if by_lane else types.float32, lanes), codegen


@intrinsic
def divide(typingctx: Any, dividend: Any, lanes: Any) -> Any:
    """`dividend / lanes`, with one rounding. `dividend` is lanes, or one float32 for all lanes."""
    by_lane = isinstance(dividend, Lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(args[0] if by_lane else _splat(builder, args[0], lanes.width), args[1])

    return lanes(dividend if by_lane else types.float32, lanes), codegen


@intrinsic
def clip(typingctx: Any, lanes: Any, lower: Any, upper: Any) -> Any:
    """The lanes, or the bound that they exceed; `lower` and `upper` are float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = (_splat(builder, bound, lanes.width) for bound in args[1:])
        raised = builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])
        return builder.select(builder.fcmp_ordered(">", raised, high), high, raised)

    return lanes(lanes, types.float32, types.float32), codegen


@intrinsic
def sqrt(typingctx: Any, lanes: Any) -> Any:
    """The square root of each lane, with one rounding."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "sqrt", args[0])

    return lanes(lanes), codegen


@intrinsic
def relu(typingctx: Any, lanes: Any) -> Any:
    """`max(lanes, 0)`, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = _constant(0.0, lanes.width)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[0], zero)

    return lanes(lanes), codegen


# exp(r) for |r| <= ln(2)/2: the Taylor polynomial of degree 7. Its remainder is below 3e-9.
_EXP = [1.0, 1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040]
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286067653e-06  # their sum is ln(2); the last 14 bits of the first are zero


@intrinsic
def sigmoid(typingctx: Any, lanes: Any) -> Any:
    """`1 / (1 + exp(-lanes))`, relative error 4e-7. The argument is clipped to ±87, the range of exp in float32."""
    n = lanes.width

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = builder.fneg(args[0])
        for bound, worse in ((87.0, ">"), (-87.0, "<")):
            limit = _constant(bound, n)
            x = builder.select(builder.fcmp_ordered(worse, x, limit), limit, x)
        power = _call(builder, "floor", _call(builder, "fma", x, _constant(1 / np.log(2), n), _constant(0.5, n)))
        rest = _call(builder, "fma", power, _constant(-_LN2_HIGH, n), x)
        rest = _call(builder, "fma", power, _constant(-_LN2_LOW, n), rest)
        series = _constant(_EXP[-1], n)
        for coefficient in reversed(_EXP[:-1]):
            series = _call(builder, "fma", series, rest, _constant(coefficient, n))
        integers = ir.VectorType(_INT, n)
        exponent = builder.shl(
            builder.add(builder.fptosi(power, integers), ir.Constant(integers, [127] * n)),
            ir.Constant(integers, [23] * n),
        )
        exponential = builder.fmul(series, builder.bitcast(exponent, ir.VectorType(_FLOAT, n)))
        one = _constant(1.0, n)
        return builder.fdiv(one, builder.fadd(one, exponential))

    return lanes(lanes), codegen
