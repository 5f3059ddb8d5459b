"""Memory and cores within the limits of machines, containers and jobs: their files, written into a folder."""

import subprocess
import sys
from pathlib import Path

import dask
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import chunking, cluster, limits

GIB, MIB = 2**30, 2**20
UNLIMITED = 9223372036854771712  # as version 1 of cgroups writes it
V1 = "35 32 0:31 {root} /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{name}"
V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw"
NO_LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max data size             unlimited            unlimited            bytes
Max address space         unlimited            unlimited            bytes"""


@pytest.fixture
def machine(tmp_path):
    """Write the files of a machine; gives its root."""

    def write(cgroup="", mounts=(), files=None, anonymous_kib=0, mapped_kib=0, rlimits=NO_LIMITS):
        proc = {
            "proc/self/cgroup": cgroup,
            "proc/self/mountinfo": "\n".join(["23 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]),
            "proc/self/status": f"Name:\tpython\nVmSize:\t{mapped_kib} kB\nVmData:\t{mapped_kib} kB\n"
            f"RssAnon:\t{anonymous_kib} kB\n",
            "proc/self/limits": rlimits,
        }
        for name, text in (proc | (files or {})).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


def memory(root, environment=None, available=8 * GIB):
    return limits.memory(root, environment or {}, available=available)


def test_a_machine_without_limits(machine):
    root = machine(anonymous_kib=1024)
    assert memory(root) == (8 * GIB + MIB, "the free memory of this machine")
    assert limits.cores(root, affinity=6) == 6


def test_a_system_without_these_files(tmp_path):
    assert memory(tmp_path)[0] == 8 * GIB
    assert limits.cores(tmp_path, affinity=3) == 3
    assert limits.memory()[0] > 0
    assert limits.cores() >= 1


class TestVersion2:
    FOLDER = "sys/fs/cgroup/user.slice/job.scope"

    def files(self, own, outer="max", used=0, cached=0):
        return {
            f"{self.FOLDER}/memory.max": own,
            f"{self.FOLDER}/memory.current": used,
            f"{self.FOLDER}/memory.stat": f"anon 1\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}",
            "sys/fs/cgroup/user.slice/memory.max": outer,
            "sys/fs/cgroup/user.slice/memory.current": used,
        }

    def root(self, machine, **values):
        files = self.files(**values)
        return machine("0::/user.slice/job.scope", [V2.format(root="/")], files, anonymous_kib=100 * 1024)

    def test_the_limit_of_the_own_cgroup(self, machine):
        size, origin = memory(self.root(machine, own=GIB))
        assert size == GIB
        assert "cgroup" in origin

    def test_that_of_one_around_it(self, machine):
        assert memory(self.root(machine, own="max", outer=2 * GIB))[0] == 2 * GIB

    def test_what_others_hold_is_taken_off_and_cached_files_are_not(self, machine):
        """700 MiB used: 300 are cached files, 100 this process itself, so 300 are others'."""
        root = self.root(machine, own=GIB, used=700 * MIB, cached=300 * MIB)
        assert memory(root)[0] == GIB - 300 * MIB

    def test_more_used_than_allowed(self, machine):
        assert memory(self.root(machine, own=GIB, used=3 * GIB))[0] == 0

    def test_a_limit_from_which_processes_are_slowed_down(self, machine):
        root = self.root(machine, own=2 * GIB)
        (root / self.FOLDER / "memory.high").write_text(f"{GIB}\n")
        assert memory(root)[0] == GIB

    def test_a_container_that_sees_itself_as_the_root(self, machine):
        files = {"sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/cpu.max": "150000 100000"}
        for cgroup, mounted in (("0::/", "/"), ("0::/docker/ab12", "/docker/ab12"), ("0::/../other", "/")):
            root = machine(cgroup, [V2.format(root=mounted)], files)
            if ".." in cgroup:
                assert memory(root)[0] == 8 * GIB, "its place cannot be seen from here"
            else:
                assert memory(root)[0] == GIB
                assert limits.cores(root, affinity=8) == 2

    @pytest.mark.parametrize(
        ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("10000 100000", 1), ("", 8), ("x y", 8)]
    )
    def test_the_quota_of_cores(self, machine, quota, cores):
        root = self.root(machine, own="max")
        (root / "sys/fs/cgroup/user.slice/cpu.max").write_text(f"{quota}\n")
        assert limits.cores(root, affinity=8) == cores


class TestVersion1:
    CGROUP = "5:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/\n0::/"

    def test_limits_of_memory(self, machine):
        folder = "sys/fs/cgroup/memory"
        mounts = [V1.format(root="/", name="memory")]
        files = {
            f"{folder}/memory.limit_in_bytes": UNLIMITED,
            f"{folder}/docker/memory.limit_in_bytes": 3 * GIB,
            f"{folder}/docker/memory.usage_in_bytes": 2 * GIB,
            f"{folder}/docker/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\ntotal_active_file 0",
            f"{folder}/docker/ab12/memory.limit_in_bytes": UNLIMITED,
        }
        assert memory(machine(self.CGROUP, mounts, files))[0] == 2 * GIB
        files[f"{folder}/docker/ab12/memory.limit_in_bytes"] = GIB
        assert memory(machine(self.CGROUP, mounts, files))[0] == GIB

    def test_a_container_whose_mount_is_its_own_cgroup(self, machine):
        """The folder has the path /docker/ab12 on the host; a limit further out shows in its statistics alone."""
        files = {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {GIB}",
        }
        root = machine(self.CGROUP, [V1.format(root="/docker/ab12", name="memory")], files)
        assert memory(root)[0] == GIB

    def test_quotas(self, machine):
        mounts = [
            "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            V1.format(root="/", name="memory"),
        ]
        folder = "sys/fs/cgroup/cpu,cpuacct/docker"
        files = {
            f"{folder}/cpu.cfs_quota_us": 350_000,
            f"{folder}/cpu.cfs_period_us": 100_000,
            f"{folder}/ab12/cpu.cfs_quota_us": -1,
            f"{folder}/ab12/cpu.cfs_period_us": 100_000,
        }
        root = machine(self.CGROUP, mounts, files)
        assert limits.cores(root, affinity=16) == 4
        assert limits.cores(root, affinity=2) == 2


@pytest.mark.parametrize("kind", ["address space", "data size"])
def test_ulimit(machine, kind):
    """Half a GiB of 2 GiB is mapped, of which 100 MiB are held: 1.5 GiB and these can be held."""
    text = f"Max {kind:<22}{2 * GIB:<21}unlimited            bytes"
    root = machine(rlimits=f"{NO_LIMITS}\n{text}", anonymous_kib=100 * 1024, mapped_kib=512 * 1024)
    assert memory(root) == (2 * GIB - 512 * MIB + 100 * MIB, "the memory left by ulimit")


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "2G"}, 2 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, 8 * GIB),  # all of the node
        ({"SLURM_MEM_PER_NODE": "plenty"}, 8 * GIB),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_ON_NODE": "4"}, 2 * GIB),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_JOB_CPUS_PER_NODE": "16(x2),6"}, 3 * GIB),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_PER_TASK": "2"}, GIB),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "1024"}, GIB),
    ],
)
def test_a_slurm_job(machine, environment, size):
    assert memory(machine(), environment)[0] == size


def test_the_tightest_wins(machine):
    files = {"sys/fs/cgroup/memory.max": 3 * GIB}
    root = machine("0::/", [V2.format(root="/")], files)
    assert memory(root, {"SLURM_MEM_PER_NODE": "2048"}, available=4 * GIB)[0] == 2 * GIB
    assert memory(root, {"SLURM_MEM_PER_NODE": "9000"}, available=4 * GIB)[0] == 3 * GIB
    assert memory(root, {"SLURM_MEM_PER_NODE": "9000"}, available=GIB)[0] == GIB


class TestPlans:
    """Slabs of 100 MiB a slice, beside the program."""

    @staticmethod
    def plan(mebibytes, *, count=64, workers=2, **keywords):
        budget = chunking.Budget(chunking.PROCESS_BYTES + mebibytes * MIB)
        return chunking.plan(
            budget, lambda shape: shape[0] * 100 * MIB, shape=(count, 8, 32), workers=workers, who="test", **keywords
        )

    def test_slabs_are_lowered_first_and_then_workers_are_left_out(self):
        assert self.plan(10_000) == chunking.Plan(slices=32, workers=2, processes=0)
        assert self.plan(900) == chunking.Plan(slices=4, workers=2, processes=0)
        assert self.plan(250, workers=8) == chunking.Plan(slices=1, workers=2, processes=0)
        assert self.plan(100, workers=128) == chunking.Plan(slices=1, workers=1, processes=0)

    def test_workers_without_a_slab_need_nothing(self):
        assert self.plan(100, count=1, workers=128) == chunking.Plan(slices=1, workers=128, processes=0)
        assert self.plan(100, count=1, workers=128, processes=32, least_for_processes=8).processes == 0

    def test_processes_need_memory_of_their_own(self):
        worker = chunking.WORKER_BYTES // MIB
        planned = self.plan(3 * worker + 850, workers=16, processes=4, least_for_processes=8)
        assert planned == chunking.Plan(slices=1, workers=8, processes=2)

    def test_a_cluster_that_runs_already_cannot_be_reduced(self):
        with pytest.raises(nt.SchemaError, match=r"one slice of 32 pixels a worker, 8 in all; .*fewer threads"):
            self.plan(250, workers=8, fixed=True)

    def test_too_little_for_one_slice(self):
        with pytest.raises(
            nt.SchemaError,
            match=r"needs 550 MiB .* one slice of 32 pixels; got a memory budget of 549 MiB; try: raise memory",
        ):
            self.plan(99, workers=8)

    def test_a_limit_that_the_user_did_not_set(self):
        with pytest.raises(nt.SchemaError, match="got the memory of the SLURM job of 1 MiB; try: end other programs"):
            chunking.Budget(MIB, "the memory of the SLURM job").check(GIB, "test", "all")

    def test_lower_slabs(self):
        assert chunking.slab_slices((64, 16, 16)) == 32
        with chunking.lower_slabs(lambda shape: 3 if shape == (64, 16, 16) else 99):
            assert chunking.slab_slices((64, 16, 16)) == 3
            assert chunking.slab_slices((64, 16, 17)) == 32
        assert chunking.slab_slices((64, 16, 16)) == 32


class TestCommands:
    def test_many_workers_for_a_small_job(self, run):
        result = run("phantom", "particle", "--size", 24, "-o", "a.zarr", "--workers", 128, "--memory", "600MiB")
        assert "note" not in result.output

    @pytest.mark.parametrize("verb", ["phantom", "import", "project", "reconstruct", "compare", "export"])
    def test_little_memory_gives_lower_slabs_and_fewer_workers(self, run, verb):
        """Slices of 1024 pixels have 4 MiB; 128 workers are asked for, and what one or two slices take."""
        nt.save(nt.volume(nt.ellipse_stack((4, 1024, 1024)).values), "v.zarr")
        nt.save(nt.tilt_series(nt.ellipse_stack((4, 1024, 1024)).values[:, :8], nt.tilt_angles("tem", 8)), "s.zarr")
        nt.write_mrc(nt.open("v.zarr"), "v.mrc")
        words = {
            "phantom": ("phantom", "ellipses", "--size", "4,1024,1024", "-o", "a.zarr"),
            "import": ("import", "v.mrc", "-o", "a.zarr"),
            "project": ("project", "v.zarr", "--range", "tem", "--count", 8, "-o", "a.zarr"),
            "reconstruct": ("reconstruct", "s.zarr", "--method", "fbp", "-o", "a.zarr"),
            "compare": ("compare", "v.zarr", "--reference", "v.zarr"),
            "export": ("export", "v.zarr", "a.mrc"),
        }[verb]
        beside = {"phantom": 70, "import": 70, "project": 60, "reconstruct": 30, "compare": 130, "export": 50}[verb]
        workers = () if verb == "export" else ("--workers", 128, "--scheduler", "threads")
        result = run(*words, *workers, "--memory", chunking.PROCESS_BYTES + beside * MIB)
        if verb in ("phantom", "import", "project", "reconstruct"):
            assert nt.open("a.zarr").data.chunks[0][0] < 4
        if verb == "compare":
            assert "note: 1 of 128 workers compute; more do not fit into --memory" in result.output
        others = [str(word).replace("a.", "b.") for word in words]
        result = run(*others, *workers, "--memory", "300MiB", exit_code=2)
        assert "try: raise --memory to " in result.output

    def test_fewer_workers_hold_for_the_session_alone(self):
        before = dask.config.get("num_workers", None)
        with cluster.session(workers=12):
            assert (cluster.current_workers(), cluster.current_processes()) == (12, 3)
            cluster.reduce_workers(5)
            assert (cluster.current_workers(), cluster.current_processes()) == (5, 2)
        with cluster.session(workers=3):
            cluster.reduce_workers(1)
            assert cluster.current_workers() == 1
        assert dask.config.get("num_workers", None) == before


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept by Linux")
@pytest.mark.slow
def test_a_job_within_a_limit_of_address_space(tmp_path):
    """Default options, a limit that threads, libraries and slabs share."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)\n"
        "from nntomo_dask.cli.main import main; main(sys.argv[1:])"
    )

    def nntomo(*words):
        subprocess.run([sys.executable, "-c", script, *map(str, words)], cwd=tmp_path, check=True)

    nntomo("phantom", "particle", "--size", 256, "-o", "particle.zarr")
    nntomo("project", "particle.zarr", "--range", "tem", "--count", 8, "-o", "series.zarr")
    nntomo("reconstruct", "series.zarr", "--method", "sirt", "--max-iterations", 5, "-o", "sirt.zarr")
    nntomo("compare", "sirt.zarr", "--reference", "particle.zarr", "--figure", "a.png")
    nntomo("export", "sirt.zarr", "sirt.mrc")
    assert Path(tmp_path / "sirt.mrc").stat().st_size > 256**3 * 4
