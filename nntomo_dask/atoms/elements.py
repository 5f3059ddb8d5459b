"""The chemical elements by their symbols, for tables that are made without ASE."""

from collections.abc import Iterable

from nntomo_dask.errors import refuse

SYMBOLS = tuple(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og".split()
)
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, 1)}


def symbols(names: Iterable[str], *, who: str) -> tuple[str, ...]:
    """Symbols of elements as the periodic table writes them, from letters of any case, in the order that is given.

    Raises
    ------
    SchemaError
        There is no such element, or one stands twice.
    """
    found = []
    for name in names:
        symbol = str(name).strip().capitalize()
        if symbol not in NUMBERS:
            refuse(who, needs="symbols of elements", got=f"{name!r}", remedy='write them as in "Zr", "O"')
        if symbol in found:
            refuse(who, needs="each element once", got=f"{symbol} twice", remedy="leave one of them out")
        found.append(symbol)
    return tuple(found)
