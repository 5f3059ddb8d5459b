"""What the recipes of two volumes say of simulations that they come from."""

import math
import re
from typing import Any

from nntomo_dask.arrays import recipes

_OF_IMAGES, _OF_TRUTH = "simulate", "ground_truth"  # operations; nothing of the simulation is imported for them
# Settings that both the images and their truth depend on.
_SHARED = ("mode", "energy_ev", "convergence_mrad", "detector_mrad", "source_size_nm", "blur_nm", "field_of_view_nm")


_NOT_ITS_TRUTH = "the reference is not the truth of this volume"


def mismatch(recipe: Any, reference: Any) -> str:
    """How the simulations of two volumes differ, in words; empty where they do not, or one was not simulated."""
    pair = [recipes.find(one, _OF_IMAGES, _OF_TRUTH) for one in (recipe, reference)]
    if pair[0] is None or pair[1] is None:
        return ""
    first, second = (one["parameters"] for one in pair if one is not None)
    cut = [(one["inputs"] or [{}])[0].get("parameters", {}) for one in pair if one is not None]
    if all("atoms" in one for one in cut) and cut[0]["atoms"] != cut[1]["atoms"]:
        return _other_specimen(*cut)
    for name in _SHARED:
        if name in first and name in second and first[name] != second[name]:
            return f"they were made with {name.replace('_', ' ')} {first[name]} and {second[name]}; {_NOT_ITS_TRUTH}"
    return ""


def _other_specimen(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [str(cut.get("crystal", "a specimen")) for cut in (one, other)]
    if names[0] == names[1]:
        return f"they are of different specimens (atoms of {names[0]}, and other atoms of {names[0]}); {_NOT_ITS_TRUTH}"
    shared = all(one.get(key) == other.get(key) for key in ("shape", "repeat", "size_nm", "tilt_axis"))
    composed = [_composition(cut.get("structure")) for cut in (one, other)]
    if shared and composed[0] and composed[0] == composed[1]:
        return (
            f"they are of one composition, but of two sources ({names[0]}, and {names[1]}), whose origins, axes or "
            f"atoms may differ; {_NOT_ITS_TRUTH} where they do: make it by nntomo truth --like"
        )
    return f"they are of different specimens ({names[0]}, and {names[1]}); {_NOT_ITS_TRUTH}"


def _composition(formula: Any) -> dict[str, int]:
    """Smallest whole numbers of the elements of a formula such as Zn4O2."""
    counts = {symbol: int(count or 1) for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", str(formula or ""))}
    divisor = math.gcd(*counts.values()) or 1
    return {symbol: count // divisor for symbol, count in counts.items()}
