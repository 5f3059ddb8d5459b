"""The methods that an assessment compares, each with some of its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.networks.network import Network
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import settings_of
from nntomo_dask.types import Float64

WHO = "assess"
PRETRAINED = "pretrained"  # the name of a network that comes with the package
# What every other candidate has to be better than: SIRT with values of at least 0, nearly converged.
BASELINE = Sirt(minimum=0.0, tolerance=1e-3)


@dataclass(frozen=True)
class Candidate:
    """A method with its settings.

    Attributes
    ----------
    title
        What tables and figures call it; no other candidate has the same.
    network
        The name that the caller gave the network, such as its file; empty where there is none.
    rank
        Among the settings of its method: 0 for those that are preferred among equals.
    """

    method: Method
    title: str
    network: str = ""
    rank: int = 0

    def for_fold(self, angles_deg: Float64, fold: Fold) -> Method:
        """The method for a series without the projections of a fold."""
        found = self.method.for_angles(np.asarray(angles_deg, np.float64)[fold.kept])
        assert found is not None  # `candidates` refuses others
        return found


def candidates(
    methods: Sequence[str | Method] | None, networks: Mapping[str, Network], angles_deg: Float64, folds: Sequence[Fold]
) -> list[Candidate]:
    """All candidates: of each method the settings that it declares, of each network its own. The baseline is the first.

    Parameters
    ----------
    methods
        Names, or methods with their settings; None for all that need no network or come with one that fits, and those
        of the networks.
    networks
        By name, such as that of the file.

    Raises
    ------
    SchemaError
        There is no such method; it needs a network and none is given, or the other way round; or a network cannot be
        judged by projections that it was trained with.
    """
    kinds = {name: type(network) for name, network in networks.items()}
    if methods is None:
        methods = [name for name in METHODS if _is_default(METHODS[name], kinds, angles_deg, folds)]
    if not methods:
        refuse(WHO, needs="a method or several", got="none", remedy=f"`methods` from {', '.join(METHODS)}")
    found: list[tuple[Method, str, int]] = [(BASELINE, "", 0)]
    used: set[str] = set()
    for one in methods:
        if isinstance(one, Method):
            found.append((one, "", 0))
            continue
        declared = METHODS.choose(one, who=WHO)
        if declared.network is None:
            found += [(method, "", rank) for rank, method in enumerate(declared.candidates())]
            continue
        own = [name for name, kind in kinds.items() if kind is declared.network]
        # Where it is asked for by name and does not fit, its check says why.
        pretrained = declared.own_networks()
        if pretrained and (not own or _fits(declared, angles_deg, folds)):
            found += [
                (method, PRETRAINED, rank) for rank, method in enumerate(declared.candidates(networks=pretrained))
            ]
        elif not own:
            refuse(
                WHO, needs=f"a network for {one}", got="none", remedy=f"`networks` from nntomo train --network {one}"
            )
        used.update(own)
        for name in own:
            members: Any = {"networks": (networks[name],)}
            found += [(method, name, rank) for rank, method in enumerate(declared.candidates(**members))]
    for name in networks:
        if name not in used:
            got = f"{name}, for {getattr(networks[name], 'name', '')}"
            refuse(WHO, needs="networks for the methods that are assessed", got=got, remedy="add it to `methods`")
    different: list[tuple[Method, str, int]] = []
    for item in found:
        if all(_identity(item[0]) != _identity(other[0]) for other in different):
            different.append(item)
    titles = _titles([method for method, *_ in different], [network for _, network, _ in different])
    made = [
        Candidate(method, title, network, rank)
        for (method, network, rank), title in zip(different, titles, strict=True)
    ]
    for candidate in made:
        _check_judged(candidate, angles_deg, folds)
    return made


def _identity(method: Method) -> tuple[object, ...]:
    """What two methods share that give the same volumes; networks are arrays, which have no single answer."""
    settings = dict(vars(method))
    digests = [network.digest for network in settings.pop("networks", ())]
    return type(method), settings, digests


def _is_default(
    method: type[Method], kinds: Mapping[str, type[Network]], angles_deg: Float64, folds: Sequence[Fold]
) -> bool:
    """Whether a method needs no network, one is given, or the package's own fits the series also without a fold."""
    return method.network is None or method.network in kinds.values() or _fits(method, angles_deg, folds)


def _fits(method: type[Method], angles_deg: Float64, folds: Sequence[Fold]) -> bool:
    """Whether the package has a network for a series, also without the projections of a fold."""
    return all(method.own_networks(angles_deg[fold.kept]) for fold in folds)


def _check_judged(candidate: Candidate, angles_deg: Float64, folds: Sequence[Fold]) -> None:
    """Refuse a method that is at home at these angles alone."""
    for fold in folds:
        if candidate.method.for_angles(angles_deg[fold.kept]) is None:
            refuse(
                WHO,
                needs="methods that take a series without some of its projections",
                got=f"{candidate.title}, which is for all of them alone",
                remedy="leave it out",
            )


def _titles(methods: Sequence[Method], networks: Sequence[str]) -> list[str]:
    """The name of each method, with the settings that tell it from others of that name, or from its defaults."""
    titles = []
    for method, network in zip(methods, networks, strict=True):
        alike = [other for other in methods if type(other) is type(method)]
        shown = [
            f"{_words(one.name)} {_value(getattr(method, one.name))}"
            for one in settings_of(method)
            if len({repr(getattr(other, one.name)) for other in alike}) > 1
            or (one.option is not None and getattr(method, one.name) != one.default)
        ]
        titles.append(", ".join([method.title, *([network] if network else []), *shown]))
    return titles


def options_of(method: Method) -> list[str]:
    """The settings that differ from the defaults, as words of the command line."""
    words = []
    for one in settings_of(method):
        value = getattr(method, one.name)
        if one.option is not None and value != one.default:
            words += [one.flag] if one.kind is bool else [one.flag, _value(value)]
    return words


def plain_settings(method: Method) -> dict[str, Any]:
    """All settings, as JSON holds them."""
    return {one.name: getattr(method, one.name) for one in settings_of(method)}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_value(part) for part in value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
