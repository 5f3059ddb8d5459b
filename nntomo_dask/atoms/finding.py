"""The settings of a search for atoms."""

from dataclasses import dataclass
from typing import Literal

from nntomo_dask.settings import setting

Scale = Literal["log", "linear"]

THRESHOLD = 5.0  # of 10⁷ values of normal noise the largest is at 5.2
FAINTEST = 0.02  # of the brightest: carbon beside zirconium has 0.04 in dark field


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is taken for an atom: the keywords of `find_atoms`, which says more about each."""

    width: float | None = setting(
        None, help="Standard deviation of the Gaussian that an atom is. Default: estimated.", unit="nm", above=0
    )
    minimum_distance: float | None = setting(
        None, help="Least distance of two atoms. Default: twice the width.", unit="nm", above=0
    )
    threshold: float = setting(
        THRESHOLD, help="Least height of an atom above the background, in standard deviations of the noise.", above=0
    )
    faintest: float = setting(
        FAINTEST, help="Least height of an atom, as a share of the brightest atoms' height.", least=0, below=1
    )
    count: int | None = setting(
        None, help="Number of atoms: the most certain ones. Default: all above the threshold.", least=1
    )
    scale: Scale = setting(
        "log", help="How elements are told from each other: by the logarithm of what an atom adds up to, or by itself."
    )
