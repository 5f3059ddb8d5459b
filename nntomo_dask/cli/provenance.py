"""What the recipes of two volumes say of simulations that they come from."""

from typing import Any

from nntomo_dask.arrays import recipes

_OF_IMAGES, _OF_TRUTH = "simulate", "ground_truth"  # operations; nothing of the simulation is imported for them
# Settings that both the images and their truth depend on.
_SHARED = ("mode", "energy_ev", "convergence_mrad", "detector_mrad", "source_size_nm", "blur_nm", "field_of_view_nm")


def mismatch(recipe: Any, reference: Any) -> str:
    """How the simulations of two volumes differ, in words; empty where they do not, or one was not simulated."""
    pair = [recipes.find(one, _OF_IMAGES, _OF_TRUTH) for one in (recipe, reference)]
    if pair[0] is None or pair[1] is None:
        return ""
    first, second = (one["parameters"] for one in pair if one is not None)
    cut = [(one["inputs"] or [{}])[0].get("parameters", {}) for one in pair if one is not None]
    if all("atoms" in one for one in cut) and cut[0]["atoms"] != cut[1]["atoms"]:
        crystals = [str(one.get("crystal", "a specimen")) for one in cut]
        other = crystals if crystals[0] != crystals[1] else [f"atoms of {name}" for name in crystals]
        return (
            f"they are of different specimens ({other[0]}, and {'other ' if other is not crystals else ''}{other[1]})"
        )
    for name in _SHARED:
        if name in first and name in second and first[name] != second[name]:
            return f"they were made with {name.replace('_', ' ')} {first[name]} and {second[name]}"
    return ""
