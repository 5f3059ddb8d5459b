"""Commands that are killed while they write: the same command again gives the same files, and leaves no other."""

import contextlib
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TRAIN = ("train", "--for", "series.zarr", "--slices", "8", "--samples", "300", "--max-epochs", "3")
NNFBP = ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "n-0.safetensors")
OFTEN = {"nntomo_dask.training.loop.CHECKPOINT_SECONDS": -1.0}
# What is run, what makes it write more often, and what is there before, besides the inputs.
VERBS = {
    "import": (("import", "in.mrc", "--angles", "in.rawtlt", "-o", "out.zarr"), {}, ()),
    "phantom": (("phantom", "spheres", "--size", "96,16,16", "-o", "out.zarr"), {}, ()),
    "project": (("project", "volume.zarr", "--range", "tem", "--count", "3", "-o", "out.zarr"), {}, ()),
    "reconstruct": (("reconstruct", "series.zarr", "--method", "fbp", "-o", "out [1]*.zarr"), {}, ()),
    "overwrite": (
        ("reconstruct", "series.zarr", "--method", "fbp", "--window", "cosine", "-o", "out.zarr", "--overwrite"),
        {},
        (("reconstruct", "series.zarr", "--method", "fbp", "-o", "out.zarr"),),
    ),
    "spread": ((*NNFBP, "--network", "n-1.safetensors", "-o", "out.zarr", "--spread", "spread.zarr"), {}, ()),
    "export": (("export", "series.zarr", "out.mrc"), {}, ()),
    "export npy": (("export", "series.zarr", "out.npy"), {}, ()),
    "export folder": (("export", "volume.zarr", "out.ome.zarr"), {}, ()),
    "export over": (
        ("export", "other.zarr", "in.mrc", "--overwrite"),
        {},
        (("project", "volume.zarr", "--range", "tem", "--count", "5", "-o", "other.zarr"),),
    ),
    "train": ((*TRAIN, "-o", "net_v0.4"), OFTEN, ()),
    "members": ((*TRAIN, "--members", "2", "-o", "out.safetensors"), OFTEN, ()),
    "sets": (
        (*TRAIN, "--solver", "lm", "--filters", "shared", "-o", "out.safetensors"),
        OFTEN | {"nntomo_dask.training.nnfbp.sets.IN_MEMORY_VOXELS": 100},
        (),
    ),
    "compare": (("compare", "volume.zarr", "--reference", "volume.zarr", "--figure", "out.png"), {}, ()),
}
CRYSTAL = ("--convergence-mrad", "8", "--detector-mrad", "24,37", "--pixels", "34")
STILL = ("--slice-thickness-nm", "0.5", "--phonons", "0")
SLOW_VERBS = {
    "simulate": (
        ("simulate", "MIL-53", "--range", "full", "--count", "2", *CRYSTAL, *STILL, "-o", "out"),
        {},
        (),
    ),
    "truth": (("truth", "MIL-53", "--mode", "idpc", *CRYSTAL, "-o", "out.zarr"), {}, ()),
    "msdnet": (
        ("train", "--network", "msdnet", *TRAIN[1:5], "--max-epochs", "1", "--depth", "2", "-o", "out.safetensors"),
        OFTEN,
        (),
    ),
}


class Commands:
    """Runs commands in processes that can be killed."""

    def __init__(self, log):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, words, folder, patches=None, number=None, moment=None):
        """The exit status, and how often files were accessed."""
        request = {"words": words, "folder": str(folder), "patches": patches or {}, "log": str(self.log)}
        request |= {"signal": number, "moment": moment}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["count"]

    def said(self):
        return self.log.read_text()[-2000:]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    started = Commands(tmp_path_factory.mktemp("log") / "log")
    yield started
    with started.process:  # which closes its input, so that it ends
        pass


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, commands):
    """A volume in three chunks, a series of it, the same as MRC, and two networks."""
    folder = tmp_path_factory.mktemp("inputs")
    for words in (
        ("phantom", "spheres", "--size", "96,16,16", "--seed", "1", "-o", "volume.zarr"),
        ("project", "volume.zarr", "--range", "tem", "--count", "4", "-o", "series.zarr"),
        ("export", "series.zarr", "in.mrc"),
        (*TRAIN, "--members", "2", "-o", "n.safetensors"),
    ):
        assert commands(words, folder)[0] == 0, commands.said()
    return folder


def contents(folder):
    """A digest of every file by its path; of a network or checkpoint without the seconds that the training took."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            with contextlib.suppress(safetensors.SafetensorError), safetensors.safe_open(path, "numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if name != "history.seconds"}
                metadata = {name: text for name, text in file.metadata().items() if not name.endswith("crc32")}
                content = repr(sorted(metadata.items())).encode()
                content += b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def check(commands, inputs, folder, verb, count):
    """Kill a command at moments spread over its writing, and run it again after each."""
    words, patches, before = (VERBS | SLOW_VERBS)[verb]
    start = Path(shutil.copytree(inputs, folder / "start"))
    for earlier in before:
        assert commands(earlier, start)[0] == 0, commands.said()
    undisturbed = Path(shutil.copytree(start, folder / "undisturbed"))
    status, accesses = commands(words, undisturbed, patches)
    assert status == 0, commands.said()
    wanted = contents(undisturbed)
    assert wanted != contents(start)
    rng = random.Random(verb)
    killed = 0
    for number in range(count):
        place = Path(shutil.copytree(start, folder / str(number)))
        kind = SIGNALS[number % len(SIGNALS)]
        moment = int((number + rng.random()) / count * accesses) + 1
        killed += commands(words, place, patches, kind, moment)[0] != 0
        status = commands(words, place, patches)[0]
        found = contents(place)
        where = f"{verb} after signal {kind} at access {moment} of {accesses}: {commands.said()}"
        # An export that is complete already is not written again.
        assert status == 0 or (verb.startswith("export") and status == 2 and found == wanted), where
        assert sorted(found) == sorted(wanted), where
        assert found == wanted, where
        shutil.rmtree(place)
    assert killed >= count / 2, "most of the moments came after the end"


@pytest.mark.parametrize("verb", ["import", "overwrite", "export"])
def test_a_few_kills(commands, inputs, tmp_path, verb):
    check(commands, inputs, tmp_path, verb, len(SIGNALS))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # eighty runs, of some seconds each where a crystal is simulated
@pytest.mark.parametrize("verb", [*VERBS, *SLOW_VERBS])
def test_forty_kills(commands, inputs, tmp_path, verb):
    check(commands, inputs, tmp_path, verb, 40)
