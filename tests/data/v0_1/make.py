"""Stores, networks and checkpoints as version 0.1.0 wrote them, with the digests of what they hold.

Run once with version 0.1.0 installed: python tests/data/v0_1/make.py OUT. Kept for the record: later versions write
other files.
"""
import hashlib, json, sys, shutil
from pathlib import Path
import numpy as np
import nntomo_dask as nt
from nntomo_dask.training import nnfbp as train_nn, msdnet as train_ms
from nntomo_dask.training.history import History
from nntomo_dask.training.msdnet_state import State
from nntomo_dask.networks import files

out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
import os; os.chdir(out)
manifest = {"arrays": {}, "networks": {}, "stores": {}}

def sha(array): return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
def note(name, array):
    manifest["arrays"][name] = {"dask_name": array.data.name, "sha256": sha(array.values), "recipe": array.attrs["recipe"], "chunks": [list(c) for c in array.chunks]}
    return array
def keep(name, array):
    saved = nt.save(array, f"{name}.zarr"); manifest["stores"][name] = {"sha256": sha(saved.values), "dask_name": saved.data.name}; return saved

N = 24
particle = keep("particle", note("particle", nt.nanoparticle((12, N, N), seed=1, n_pores=2)))
note("spheres", nt.random_spheres((8, N, N), seed=2, n_spheres=5, grey="grey"))
note("ellipses", nt.ellipse_stack((8, N, N), seed=2))
note("training", nt.training_stack((8, N, N), seed=2))
note("mixed", nt.mixed_stack((8, N, N), seed=2))
note("bodies", nt.body_stack((8, N, N), seed=2))
angles = nt.tilt_angles("tem", 8)
series = keep("series", note("series", nt.project(particle, angles)))
note("project_astra", nt.project(particle, angles, engine="astra"))
note("backproject", nt.backproject(series))
note("resize", nt.resize(series, 16))
note("complete_wedge", nt.complete_wedge(series))
note("fbp", nt.fbp(series)); note("fbp_hann", nt.fbp(series, window="hann"))
note("fbp_astra", nt.fbp(series, engine="astra"))
keep("sirt", note("sirt", nt.sirt(series)))
note("sirt_nonnegative", nt.sirt(series, minimum=0, tolerance=1e-3))
note("sirt_astra", nt.sirt(series, engine="astra", max_iterations=5))
note("normalize", nt.normalize(particle)); note("segment", nt.segment(particle, threshold=0.5))

class Stop(Exception): pass
def interrupted(room, record, function, saves, checkpoint):
    """Train with a checkpoint after every step, and stop after some of them."""
    original, seconds, count = record.save, room.CHECKPOINT_SECONDS, 0
    def save(self, path):
        nonlocal count
        original(self, path); count += 1
        if count == saves: raise Stop
    record.save, room.CHECKPOINT_SECONDS = save, -1.0
    try: function(checkpoint=checkpoint)
    except Stop: pass
    else: raise AssertionError("was not interrupted")
    finally: record.save, room.CHECKPOINT_SECONDS = original, seconds

sets = nt.phantom_samples(series, n_slices=16, n_samples=1500)
manifest["sets"] = {"nnfbp": [part.attrs["recipe"] for part in sets]}
nt.save(sets[0], "samples.zarr")
for solver, epochs, saves in (("lm", 12, 5), ("adam", 4, 2)):
    args = dict(hidden_nodes=3, solver=solver, max_epochs=epochs, progress="none")
    if solver == "adam":
        args["batch_size"] = 64
    interrupted(train_nn, History, lambda checkpoint: nt.train_nnfbp(*sets, checkpoint=checkpoint, **args), saves, f"nnfbp_{solver}_interrupted.training.safetensors")
    network = nt.train_nnfbp(*sets, checkpoint=f"nnfbp_{solver}.training.safetensors", **args)
    nt.save_network(network, f"nnfbp_{solver}.safetensors")
    manifest["networks"][f"nnfbp_{solver}"] = {"digest": network.digest, "recipe": network.recipe, "arguments": args}
nn = nt.load_network("nnfbp_lm.safetensors")
second = nt.train_nnfbp(*sets, hidden_nodes=3, max_epochs=5, seed=1, progress="none")
nt.save_network(second, "nnfbp_second.safetensors"); manifest["networks"]["nnfbp_second"] = {"digest": second.digest, "recipe": second.recipe}
keep("nnfbp", note("nnfbp", nt.nnfbp(series, nn)))
note("nnfbp_scaled", nt.nnfbp(series, nn, scale=1.5))
note("nnfbp_ensemble", nt.nnfbp(series, [nn, second])); note("nnfbp_spread", nt.nnfbp(series, [nn, second], statistic="spread"))
manifest["level"] = float(nt.intensity_level(series)); manifest["outside"] = nt.outside_training_range(series, nn).values.tolist()

made = {}
for method, options in (("sirt", {}), ("fbp", {}), ("nnfbp", {"network": nn})):
    sets = nt.phantom_slices(series, n_slices=16, method=method, neighbours=1, **options)
    manifest["sets"][f"msdnet_{method}"] = [part.attrs["recipe"] for part in sets]
    args = dict(depth=3, max_epochs=3, progress="none", device="cpu")
    if method == "sirt":
        interrupted(train_ms, State, lambda checkpoint: nt.train_msdnet(*sets, checkpoint=checkpoint, **args), 6, "msdnet_sirt_interrupted.training.safetensors")
    network = nt.train_msdnet(*sets, checkpoint=f"msdnet_{method}.training.safetensors", **args)
    nt.save_network(network, f"msdnet_{method}.safetensors")
    manifest["networks"][f"msdnet_{method}"] = {"digest": network.digest, "recipe": network.recipe, "arguments": args}
    note(f"msdnet_{method}", nt.msdnet(series, network)); made[method] = network
keep("msdnet", nt.msdnet(series, made["sirt"]))
self_sets = nt.noise2inverse_slices(series, neighbours=1)
network = nt.train_msdnet(*self_sets, depth=2, max_epochs=1, progress="none", device="cpu")
nt.save_network(network, "msdnet_self.safetensors"); manifest["networks"]["msdnet_self"] = {"digest": network.digest, "recipe": network.recipe}
note("msdnet_self", nt.msdnet(series, network))
second = nt.train_msdnet(*nt.phantom_slices(series, n_slices=16, neighbours=1), depth=3, max_epochs=2, seed=1, progress="none", device="cpu")
nt.save_network(second, "msdnet_second.safetensors")
note("msdnet_ensemble", nt.msdnet(series, [made["sirt"], second])); note("msdnet_spread", nt.msdnet(series, [made["sirt"], second], statistic="spread"))
# a series stored by angle, with a name, as simulations are
by_angle = nt.project(particle, angles).chunk({"z": -1, "angle": 1}).rename("haadf")
import xarray as xr
pair = xr.Dataset({"haadf": by_angle, "idpc": (by_angle * 2).assign_attrs(by_angle.attrs).rename("idpc")})
nt.save(pair, "by_angle.zarr"); manifest["stores"]["by_angle"] = {n: sha(nt.open(f"by_angle.zarr/{n}").values) for n in ("haadf", "idpc")}
nt.write_mrc(particle, "particle.mrc"); nt.write_mrc(series, "series.mrc"); nt.write_tilt_angles(angles, "series.rawtlt")
note("read_mrc", nt.read_mrc_series("series.mrc", angles)); note("read_mrc_kept", nt.read_mrc_series("series.mrc", angles, keep_deg=[-50, 0, 50], background=0.5))
note("read_mrc_volume", nt.read_mrc_volume("particle.mrc"))
big = nt.random_spheres((96, N, N), seed=3, n_spheres=9)
big = nt.nt_slabs.lazy(big) if hasattr(nt, "nt_slabs") else big
nt.save(big, "incomplete.zarr")
manifest["arrays"]["incomplete"] = {"sha256": sha(nt.open("incomplete.zarr").values)}
chunks = sorted(Path("incomplete.zarr/volume/c").rglob("*")); chunks = [c for c in chunks if c.is_file()]
manifest["incomplete_chunks"] = len(chunks); chunks[1].unlink()
import numba, scipy, torch, llvmlite
from numpy._core._multiarray_umath import __cpu_features__
manifest["made_by"] = {"cpu": sorted(k for k, v in __cpu_features__.items() if v), "versions": {m.__name__: m.__version__ for m in (np, scipy, numba, llvmlite, torch)}}
Path("manifest.json").write_text(json.dumps(manifest, indent=1))
