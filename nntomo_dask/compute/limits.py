"""How much of the machine this process may use: memory and CPU cores, within the limits that containers and jobs set.

Every function reads the files of one root folder and takes the environment as a parameter, so that the tests give them
those of other machines. What cannot be read sets no limit.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

ROOT = Path("/")
_MIB = 2**20  # SLURM counts memory in these
_SUFFIXES = {"": _MIB, "K": 2**10, "M": _MIB, "G": 2**30, "T": 2**40}
_NO_LIMIT = 2**60  # version 1 of cgroups writes "no limit" as a number of about 2⁶³
_ADDRESS_SPACE, _DATA = "Max address space", "Max data size"


def memory(
    root: Path = ROOT, environment: Mapping[str, str] = os.environ, *, available: int | None = None
) -> tuple[int, str]:
    """Bytes that this process may hold, what it holds already included, and which limit that is: the tightest of all.

    There are the free memory of the machine, the memory limits of the process's cgroup and of those around it (versions
    1 and 2, less what their other processes hold), ``ulimit -v`` and ``ulimit -d``, and the memory of a SLURM job.

    Parameters
    ----------
    root
        Folder with ``proc`` and ``sys``.
    available
        Free memory of the machine in bytes; by default what the system says.
    """
    free = int(psutil.virtual_memory().available) if available is None else available
    held = _own_bytes(root)
    found = [
        (free + held, "the free memory of this machine"),
        *((size, "the memory left by the limit of a cgroup (container or job)") for size in _cgroup_bytes(root, held)),
        *((size, "the memory left by ulimit") for size in _rlimit_bytes(root, held)),
        *((size, "the memory of the SLURM job") for size in _slurm_bytes(root, environment)),
    ]
    size, which = min(found, key=lambda one: one[0])
    return max(size, 0), which


def cores(root: Path = ROOT, *, affinity: int | None = None) -> int:
    """CPU cores that this process may use: its affinity, or fewer where the quota of a cgroup allows less time.

    A part of a core counts as a core: with a quota of 1.5 cores two threads run.

    Parameters
    ----------
    affinity
        Cores of the process; by default what the system says.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([affinity, *(math.ceil(quota) for quota in _cgroup_quotas(root))]), 1)


# Control groups.


def _cgroup_folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of the process's own cgroup for a controller, and of each one around it, up to the mount.

    A container may see its own cgroup as the root of the mount, while the process's file names it by its place on the
    host; then the mount itself is taken.
    """
    paths = _own_cgroups(root)
    for version, source, mount, controllers in _cgroup_mounts(root):
        if version == 1 and controller not in controllers:
            continue
        path = paths.get("" if version == 2 else controller)
        if path is None:
            continue
        place = root / mount.lstrip("/")
        inside = os.path.relpath(path, source) if _lies_in(path, source) else "."
        folder = place / inside
        if not folder.is_dir():
            folder = place
        while True:
            yield version, folder
            if folder == place:
                break
            folder = folder.parent


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _own_cgroups(root: Path) -> dict[str, str]:
    """The process's cgroup for each controller of version 1; that of version 2 under the name ""."""
    found: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if path.startswith("/") and "/.." not in path:
            found |= dict.fromkeys(controllers.split(","), path)
    return found


def _cgroup_mounts(root: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    """Version, cgroup at the root of the mount, place of the mount, and controllers of each mount of cgroups."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if kind in ("cgroup", "cgroup2") and len(fields) >= 5:
            options = rest[-1].split(",") if rest else []
            yield (1 if kind == "cgroup" else 2), _unescaped(fields[3]), _unescaped(fields[4]), options


def _unescaped(text: str) -> str:
    """A path of mountinfo, which writes blanks as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _cgroup_bytes(root: Path, held: int) -> Iterator[int]:
    """What each cgroup leaves this process: its limit less what others hold, without cached files, which give way."""
    for version, folder in _cgroup_folders(root, "memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        limits = [limit for name in names if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT]
        statistics = dict(_pairs(folder / "memory.stat"))
        if version == 1 and statistics.get("hierarchical_memory_limit", _NO_LIMIT) < _NO_LIMIT:
            limits.append(statistics["hierarchical_memory_limit"])  # of those around it that cannot be seen
        if limits:
            used = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes")) or 0
            before = "total_" if version == 1 and "total_inactive_file" in statistics else ""
            cached = sum(statistics.get(f"{before}{name}", 0) for name in ("inactive_file", "active_file"))
            yield min(limits) - max(used - cached - held, 0)


def _cgroup_quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each cgroup allows."""
    for version, folder in _cgroup_folders(root, "cpu"):
        if version == 2:
            parts = " ".join(_lines(folder / "cpu.max")).split()
            quota, period = (_whole(parts[0]), _whole(parts[1])) if len(parts) == 2 else (None, None)
        else:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is not None and period is not None and quota > 0 and period > 0:
            yield quota / period


# Limits of the process and of its job.


def _rlimit_bytes(root: Path, held: int) -> Iterator[int]:
    """What ``ulimit -v`` and ``ulimit -d`` leave. Both count address space, which is more than memory that is held."""
    status = {name: _whole(text.split()[0]) for name, _, text in _status(root) if text.split()}
    for line in _lines(root / "proc/self/limits"):
        for name, mapped in ((_ADDRESS_SPACE, "VmSize"), (_DATA, "VmData")):
            if line.startswith(name):
                limit = _whole(line.removeprefix(name).split()[0])
                if limit is not None:
                    yield limit - (status.get(mapped) or 0) * 1024 + held


def _own_bytes(root: Path) -> int:
    """Memory that this process holds by itself, without the files that it has mapped."""
    for name, _, text in _status(root):
        if name == "RssAnon":
            return (_whole(text.split()[0]) or 0) * 1024
    return 0


def _status(root: Path) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in _lines(root / "proc/self/status")]


def _slurm_bytes(root: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Memory of a SLURM job on this machine: for the node, or for each of its CPUs."""
    node = _slurm_number(environment.get("SLURM_MEM_PER_NODE", ""))
    each = _slurm_number(environment.get("SLURM_MEM_PER_CPU", ""))
    if node:  # 0 stands for all of the node's memory
        yield node
    if each:
        yield each * _slurm_cpus(root, environment)


def _slurm_number(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip().upper())
    return int(found[1]) * _SUFFIXES[found[2]] if found else 0


def _slurm_cpus(root: Path, environment: Mapping[str, str]) -> int:
    """CPUs of a SLURM job on this machine."""
    # SLURM_JOB_CPUS_PER_NODE lists all nodes, "16(x2),8"; this may be any of them, so the least is taken.
    on_node = _whole(environment.get("SLURM_CPUS_ON_NODE", ""))
    listed = re.sub(r"\(x\d+\)", "", environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    per_node = [number for text in listed.split(",") if (number := _whole(text))]
    return on_node or min(per_node, default=0) or _whole(environment.get("SLURM_CPUS_PER_TASK", "")) or cores(root)


# Files.


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if (number := _whole(value)) is not None:
            yield name, number


def _number(path: Path) -> int | None:
    """The number in a file; None where it has none, such as "max"."""
    return _whole("".join(_lines(path)[:1]))


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
