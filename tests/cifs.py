"""Small CIFs with what is right about them: atoms of the cell by element, the shortest distance, or a refusal.

The right answers are known without the program: Wyckoff multiplicities of the International Tables, and distances that
follow from the cell by hand. Every file is written here; none is a copy.
"""

from dataclasses import dataclass
from math import sqrt

ALPHA_OF_CALCITE = 46.08  # degrees, of the rhombohedral cell of 6.375 Å


@dataclass(frozen=True)
class Case:
    """A file, and what is right.

    Parameters
    ----------
    text
        The file; bytes where its encoding matters.
    atoms
        Number of atoms of the cell by element; empty where the file is refused.
    shortest
        Distance of the nearest atoms, [Å].
    refused, warned
        Part of a message, a regular expression.
    """

    text: str | bytes
    atoms: dict[str, int] | None = None
    shortest: float | None = None
    refused: str = ""
    warned: str = ""


def cell(a, b=None, c=None, alpha=90, beta=90, gamma=90):
    b, c = a if b is None else b, a if c is None else c
    lengths = "".join(f"_cell_length_{name} {value}\n" for name, value in zip("abc", (a, b, c), strict=True))
    names = ("alpha", "beta", "gamma")
    return lengths + "".join(
        f"_cell_angle_{name} {value}\n" for name, value in zip(names, (alpha, beta, gamma), strict=True)
    )


def sites(*rows, columns="label type_symbol fract_x fract_y fract_z"):
    return "loop_\n" + "".join(f"_atom_site_{name}\n" for name in columns.split()) + "".join(f"{row}\n" for row in rows)


def symbol(name, number=None):
    return f"_symmetry_space_group_name_H-M '{name}'\n" + (
        f"_symmetry_Int_Tables_number {number}\n" if number is not None else ""
    )


def operations(*triplets, tag="_space_group_symop_operation_xyz"):
    return f"loop_\n{tag}\n" + "".join(f"'{one}'\n" for one in triplets)


P1 = symbol("P 1") + operations("x, y, z")
ZNO = ("Zn1 Zn 0.1 0.1 0.1", "O1 O 0.3 0.3 0.3")
TWO = {"Zn": 1, "O": 1}
APART = 10 * sqrt(3) * 0.2  # of the two sites of ZNO in a cell of 10 Å


def zno(*, before="data_a\n", box=None, symmetry=P1, rows=ZNO, **keywords):
    return before + (cell(10) if box is None else box) + symmetry + sites(*rows, **keywords)


def crystal(box, symmetry, *rows, **keywords):
    return "data_a\n" + box + symmetry + sites(*rows, **keywords)


OCCUPANCY = "label type_symbol fract_x fract_y fract_z occupancy"
LABELS = "label fract_x fract_y fract_z"
DISORDER = "label type_symbol fract_x fract_y fract_z disorder_assembly disorder_group"
HALITE = ("Na1 Na+ 0 0 0", "Cl1 Cl- 1/2 1/2 1/2")
HEXAGONAL_CORUNDUM = cell(4.76, 4.76, 12.99, gamma=120)
CORUNDUM = ("Al1 Al 0 0 0.352", "O1 O 0.306 0 0.25")
CALCITE_R = cell(6.375, alpha=ALPHA_OF_CALCITE, beta=ALPHA_OF_CALCITE, gamma=ALPHA_OF_CALCITE)
CALCITE_H = cell(4.99, 4.99, 17.06, gamma=120)
DIAMOND_AT_0, DIAMOND_AT_8TH = ("C1 C 0 0 0",), ("C1 C 0.125 0.125 0.125",)
C_C = 3.567 * sqrt(3) / 4

CASES = {
    # Known structures, in each way to name the symmetry.
    "halite_by_symbol": Case(crystal(cell("5.640(1)"), symbol("F m -3 m", 225), *HALITE), {"Na": 4, "Cl": 4}, 5.64 / 2),
    "halite_old_symbol": Case(crystal(cell(5.64), symbol("F m 3 m"), *HALITE), {"Na": 4, "Cl": 4}, 5.64 / 2),
    "halite_without_blanks": Case(crystal(cell(5.64), symbol("FM-3M"), *HALITE), {"Na": 4, "Cl": 4}, 5.64 / 2),
    "halite_by_number": Case(
        crystal(cell(5.64), "_space_group_IT_number 225\n", *HALITE),
        {"Na": 4, "Cl": 4},
        5.64 / 2,
        warned="space group 225 of .* is read in its standard setting, F m -3 m",
    ),
    "halite_by_hall": Case(
        crystal(cell(5.64), "_space_group_name_Hall '-F 4 2 3'\n", *HALITE), {"Na": 4, "Cl": 4}, 5.64 / 2
    ),
    "caesium_chloride": Case(
        crystal(cell(4.123), symbol("P m -3 m", 221), "Cs1 CS 0 0 0", "Cl1 CL 0.5 0.5 0.5"),
        {"Cs": 1, "Cl": 1},
        4.123 * sqrt(3) / 2,
    ),
    "sphalerite": Case(
        crystal(cell(5.41), symbol("F -4 3 m", 216), "Zn1 Zn 0 0 0", "S1 S .25 .25 .25"),
        {"Zn": 4, "S": 4},
        5.41 * sqrt(3) / 4,
    ),
    "wurtzite": Case(
        crystal(cell(3.82, 3.82, 6.26, gamma=120), symbol("P 63 m c", 186), "Zn1 Zn 1/3 2/3 0", "S1 S 1/3 2/3 0.375"),
        {"Zn": 2, "S": 2},
        sqrt(3.82**2 / 3 + (0.125 * 6.26) ** 2),
    ),
    "wurtzite_of_three_digits": Case(
        crystal(
            cell(3.82, 3.82, 6.26, gamma=120), symbol("P 63 m c"), "Zn1 Zn 0.333 0.667 0", "S1 S 0.333 0.667 0.375"
        ),
        {"Zn": 2, "S": 2},
        sqrt(3.82**2 / 3 + (0.125 * 6.26) ** 2),
    ),
    "rutile": Case(
        crystal(cell(4.594, 4.594, 2.959), symbol("P 42/m n m", 136), "Ti1 Ti 0 0 0", "O1 O 0.305 0.305 0"),
        {"Ti": 2, "O": 4},
        sqrt(2 * (0.195 * 4.594) ** 2 + (2.959 / 2) ** 2),
    ),
    "fluorite": Case(
        crystal(cell(5.463), symbol("F m -3 m", 225), "Ca1 Ca 0 0 0", "F1 F 0.25 0.25 0.25"),
        {"Ca": 4, "F": 8},
        5.463 * sqrt(3) / 4,
    ),
    "perovskite": Case(
        crystal(cell(3.905), symbol("P m -3 m", 221), "Sr1 Sr 0 0 0", "Ti1 Ti 0.5 0.5 0.5", "O1 O 0.5 0.5 0"),
        {"Sr": 1, "Ti": 1, "O": 3},
        3.905 / 2,
    ),
    "copper": Case(crystal(cell(3.615), symbol("F m -3 m", 225), "CU1 CU 0 0 0"), {"Cu": 4}, 3.615 / sqrt(2)),
    "iron": Case(crystal(cell(2.866), symbol("I m -3 m", 229), "Fe1 FE 0 0 0"), {"Fe": 2}, 2.866 * sqrt(3) / 2),
    "cobalt": Case(
        crystal(cell(2.507, 2.507, 4.069, gamma=120), symbol("P 63/m m c", 194), "Co1 CO 1/3 2/3 0.25"),
        {"Co": 2},
        sqrt(2.507**2 / 3 + (4.069 / 2) ** 2),
    ),
    "quartz": Case(
        crystal(
            cell(4.913, 4.913, 5.405, gamma=120), symbol("P 32 2 1", 154), "Si1 Si 0.47 0 2/3", "O1 O 0.413 0.266 0.786"
        ),
        {"Si": 3, "O": 6},
    ),
    "anatase_origin_1": Case(
        crystal(cell(3.785, 3.785, 9.514), symbol("I 41/a m d :1", 141), "Ti1 Ti 0 0 0", "O1 O 0 0 0.208"),
        {"Ti": 4, "O": 8},
        sqrt((3.785 / 2) ** 2 + (0.042 * 9.514) ** 2),
    ),
    "anatase_origin_2": Case(
        crystal(cell(3.785, 3.785, 9.514), symbol("I 41/a m d :2", 141), "Ti1 Ti 0 0.75 0.125", "O1 O 0 0.75 0.333"),
        {"Ti": 4, "O": 8},
        sqrt((3.785 / 2) ** 2 + (0.042 * 9.514) ** 2),
    ),
    "anatase_without_origin": Case(
        crystal(cell(3.785, 3.785, 9.514), symbol("I 41/a m d", 141), "Ti1 Ti 0 0 0"),
        refused=r"two readings: I 41/a m d:1 \(origin choice 1\) or I 41/a m d:2 \(origin choice 2",
    ),
    "diamond_origin_1": Case(crystal(cell(3.567), symbol("F d -3 m:1", 227), *DIAMOND_AT_0), {"C": 8}, C_C),
    "diamond_origin_2": Case(crystal(cell(3.567), symbol("F d -3 m :2", 227), *DIAMOND_AT_8TH), {"C": 8}, C_C),
    "diamond_of_icsd": Case(crystal(cell(3.567), symbol("F d -3 m Z"), *DIAMOND_AT_8TH), {"C": 8}, C_C),
    "diamond_of_icsd_origin_1": Case(crystal(cell(3.567), symbol("F d -3 m S"), *DIAMOND_AT_0), {"C": 8}, C_C),
    "diamond_in_words": Case(
        crystal(cell(3.567), symbol("F d -3 m (origin choice 2)"), *DIAMOND_AT_8TH), {"C": 8}, C_C
    ),
    "diamond_by_code": Case(
        crystal(
            cell(3.567),
            symbol("F d -3 m", 227) + "_space_group_IT_coordinate_system_code 2\n",
            *DIAMOND_AT_8TH,
        ),
        {"C": 8},
        C_C,
    ),
    "diamond_by_hall": Case(
        crystal(cell(3.567), symbol("F d -3 m") + "_symmetry_space_group_name_Hall '-F 4vw 2vw 3'\n", *DIAMOND_AT_8TH),
        {"C": 8},
        C_C,
    ),
    "diamond_without_origin": Case(
        crystal(cell(3.567), symbol("F d -3 m", 227), *DIAMOND_AT_0),
        refused=r"two readings: F d -3 m:1 .* or F d -3 m:2 .*; try: write the operations .* 'F d -3 m:2'",
    ),
    "diamond_by_number": Case(
        crystal(cell(3.567), "_symmetry_Int_Tables_number 227\n", *DIAMOND_AT_0),
        refused="two readings: F d -3 m:1 .* or F d -3 m:2",
    ),
    "magnetite_origin_2": Case(
        crystal(
            cell(8.394),
            symbol("F d -3 m :2"),
            "Fe1 Fe3+ 0.125 0.125 0.125",
            "Fe2 Fe3+ 0.5 0.5 0.5",
            "O1 O2- 0.255 0.255 0.255",
        ),
        {"Fe": 24, "O": 32},
        8.394 * sqrt(3) * 0.13,
    ),
    "corundum_by_symbol": Case(crystal(HEXAGONAL_CORUNDUM, symbol("R -3 c", 167), *CORUNDUM), {"Al": 12, "O": 18}),
    "corundum_marked": Case(crystal(HEXAGONAL_CORUNDUM, symbol("R -3 c H"), *CORUNDUM), {"Al": 12, "O": 18}),
    "corundum_by_number": Case(
        crystal(HEXAGONAL_CORUNDUM, "_space_group_IT_number 167\n", *CORUNDUM),
        {"Al": 12, "O": 18},
        warned="R -3 c:H",
    ),
    "calcite_hexagonal": Case(
        crystal(CALCITE_H, symbol("R -3 c", 167), "Ca1 Ca 0 0 0", "C1 C 0 0 0.25", "O1 O 0.257 0 0.25"),
        {"Ca": 6, "C": 6, "O": 18},
        0.257 * 4.99,
    ),
    "calcite_rhombohedral": Case(
        crystal(CALCITE_R, symbol("R -3 c", 167), "Ca1 Ca 0 0 0", "C1 C 0.25 0.25 0.25", "O1 O 0.507 -0.007 0.25"),
        {"Ca": 2, "C": 2, "O": 6},
        0.257 * 4.99,
    ),
    "rhombohedral_by_number": Case(
        crystal(cell(9, alpha=70, beta=70, gamma=70), "_space_group_IT_number 166\n", "Zn1 Zn 0 0 0"),
        {"Zn": 1},
        9.0,
        warned="R -3 m:R",
    ),
    "rhombohedral_that_fits_no_setting": Case(
        crystal(cell(9, 9, 12), symbol("R -3 m"), "Zn1 Zn 0 0 0"),
        refused="needs a cell that fits R -3 m:H or R -3 m:R; got 9, 9, 12 Å and 90, 90, 90°",
    ),
    "monoclinic_n": Case(crystal(cell(10, beta=100), symbol("P 1 21/n 1"), "Zn1 Zn 0.1 0.2 0.3"), {"Zn": 4}),
    "monoclinic_short": Case(crystal(cell(10, beta=100), symbol("P21/c"), "Zn1 Zn 0.1 0.2 0.3"), {"Zn": 4}),
    "monoclinic_unique_c": Case(crystal(cell(10, gamma=100), symbol("P 1 1 21/b"), "Zn1 Zn 0.1 0.2 0.3"), {"Zn": 4}),
    "monoclinic_of_another_axis": Case(
        crystal(cell(10, gamma=100), symbol("P 1 21/c 1"), "Zn1 Zn 0.1 0.2 0.3"),
        refused="needs a cell that fits P 1 21/c 1",
    ),
    "orthorhombic_other_axes": Case(crystal(cell(9, 10, 11), symbol("P b n m", 62), "Zn1 Zn 0.1 0.2 0.25"), {"Zn": 4}),
    "symbol_and_number_differ": Case(
        crystal(cell(10), symbol("P n m a", 14), "Zn1 Zn 0.1 0.25 0.1"),
        refused="needs one space group; got 'P n m a', which has number 62, and number 14",
    ),
    "no_known_group": Case(
        crystal(cell(10), symbol("Q 5"), "Zn1 Zn 0.1 0.25 0.1"), refused="'Q 5' in .*, which is no known space group"
    ),
    # Operations.
    "operations_before_symbol": Case(
        crystal(cell(10), symbol("P 1") + operations("x,y,z", "-x,-y,-z"), "Zn1 Zn 0.1 0.2 0.3"),
        {"Zn": 2},
        warned="those of P -1, and the symbol there is P 1; the operations are taken",
    ),
    "operations_in_decimals": Case(
        crystal(
            cell(10, 10, 8, gamma=120),
            operations("X,Y,Z", "-Y,X-Y,Z+0.3333", "-X+Y,-X,Z+.6667", tag="_symmetry_equiv_pos_as_xyz"),
            "Zn1 Zn 0.1 0.2 0.3",
        ),
        {"Zn": 3},
    ),
    "operations_of_the_other_origin": Case(
        crystal(
            cell(10),
            symbol("P n n n")
            + operations(
                "x,y,z",
                "1/2-x,1/2-y,z",
                "1/2-x,y,1/2-z",
                "x,1/2-y,1/2-z",
                "-x,-y,-z",
                "x+1/2,y+1/2,-z",
                "x+1/2,-y,z+1/2",
                "-x,y+1/2,z+1/2",
            ),
            "Zn1 Zn 0.25 0.25 0.25",
        ),
        {"Zn": 2},
        10 * sqrt(3) / 2,
    ),
    "operations_that_lack_some": Case(
        crystal(cell(10), operations("x,y,z", "-x,-y,z+1/4"), "Zn1 Zn 0.1 0.2 0.3"),
        refused="needs symmetry operations that are a group; got 2 in .*, of which two together are not among them",
    ),
    "operations_unreadable": Case(
        crystal(cell(10), operations("x,y,z", "-x,y"), "Zn1 Zn 0.1 0.2 0.3"),
        refused="needs symmetry operations such as .* got '-x,y'",
    ),
    "operations_that_do_not_fit": Case(
        crystal(cell(10, 11, 12), operations("x,y,z", "y,z,x", "z,x,y"), "Zn1 Zn 0.1 0.2 0.3"),
        refused="needs a cell that fits its symmetry operations; got 10, 11, 12 Å",
    ),
    "no_symmetry": Case(zno(symmetry=""), TWO, APART, warned="names no space group and no operations"),
    "symmetry_unknown": Case(
        zno(symmetry=symbol("?", "?").replace("'", "")), TWO, APART, warned="names no space group"
    ),
    # Blocks.
    "two_crystals": Case(
        zno(before="data_first\n") + zno(before="data_second\n"),
        refused=r"needs one crystal; got 2 data blocks with atoms in .*: first \(1\) and second \(2\); "
        "try: block='first'",
    ),
    "block_without_atoms": Case(
        zno(before="data_global\n_publ_section_title 'x'\ndata_a\n") + "data_b\nloop_\n_refln_index_h\n1\n2\n",
        TWO,
        APART,
    ),
    "no_data_line": Case(zno(before=""), TWO, APART),
    "text_before_data": Case(zno(before="made by hand\ndata_a\n"), TWO, APART),
    "broken_author": Case(zno(before="data_a\n_citation_author_name 'A. Author',\n"), TWO, APART),
    "cell_twice": Case(zno(before="data_a\n_cell_length_a 11\n"), refused="needs one _cell_length_a in a data block"),
    # Numbers.
    "uncertainties": Case(
        zno(
            box=cell("10.0(2)", "10.00(12)", "1.0E1"),
            rows=("Zn1 Zn 0.100(2) .1(1) 1/10", "O1 O 0.3000(4) -0.70(12) 1.3"),
        ),
        TWO,
        APART,
    ),
    "outside_the_cell": Case(zno(rows=("Zn1 Zn -0.9 1.1 0.1", "O1 O -0.7 1.3 2.3")), TWO, APART),
    "nan": Case(zno(rows=("Zn1 Zn nan 0.1 0.1",)), refused="needs a number as coordinate of Zn1; got 'nan'"),
    "too_large": Case(zno(rows=("Zn1 Zn 1e999 0.1 0.1",)), refused="needs a number as coordinate of Zn1; got '1e999'"),
    "angle_too_large": Case(zno(box=cell(10, gamma="1e400")), refused="needs a number as _cell_angle_gamma"),
    "comma": Case(zno(rows=("Zn1 Zn 0,1 0.1 0.1",)), refused="got '0,1'.*its decimal sign is a point"),
    "no_place": Case(zno(rows=(*ZNO, "H1 H ? . ?")), TWO, APART, warned="H1 in .* has no coordinates and is left out"),
    "cartesian": Case(
        zno(rows=("Zn1 Zn 1 1 1", "O1 O 3 3 3"), columns="label type_symbol Cartn_x Cartn_y Cartn_z"), TWO, APART
    ),
    "no_volume": Case(zno(box=cell(10, alpha=30, beta=30, gamma=120)), refused="needs a cell with a volume"),
    "no_cell": Case(zno(box=""), refused="needs a cell; got none"),
    # Occupancies and alternatives.
    "occupancy_unknown": Case(zno(rows=(f"{ZNO[0]} ?", f"{ZNO[1]} ."), columns=OCCUPANCY), TWO, APART),
    "occupancy_no_number": Case(
        zno(rows=(f"{ZNO[0]} 1", f"{ZNO[1]} full"), columns=OCCUPANCY),
        refused="needs a number as occupancy of O1; got 'full'",
    ),
    "occupancy_half": Case(
        zno(rows=(f"{ZNO[0]} 1.00(2)", f"{ZNO[1]} 0.50(3)"), columns=OCCUPANCY),
        refused=r"needs sites that are fully occupied; got occupancies of O 0\.5",
    ),
    "occupancy_shared": Case(
        zno(rows=(f"{ZNO[0]} 0.6", "Cu1 Cu 0.1 0.1 0.1 0.4"), columns=OCCUPANCY),
        refused=r"occupancies of Zn 0\.6, Cu 0\.4",
    ),
    "occupancy_above_one": Case(
        zno(rows=(f"{ZNO[0]} 2.0",), columns=OCCUPANCY), refused="needs occupancies from 0 to 1; got 2 of Zn1"
    ),
    "alternatives": Case(
        zno(rows=("Zn1 Zn 0 0 0 . .", "O1A O 0.2 0 0 A 1", "O1B O 0.3 0 0 A 2"), columns=DISORDER),
        refused="got disorder groups 1, 2 of assembly A",
    ),
    "site_given_twice": Case(
        zno(rows=(*ZNO, "Zn2 Zn 1.1 0.1 0.1")), TWO, APART, warned="Zn2 in .* repeats another site"
    ),
    "beside_a_mirror_plane": Case(
        crystal(cell(10), symbol("P m m m"), "Zn1 Zn 0.004 0.25 0.25"),
        {"Zn": 4},
        5.0,
        warned=r"Zn1 in .* moved by up to 0\.04 Å onto the symmetry element",
    ),
    "too_close": Case(zno(rows=(ZNO[0], "O1 O 0.13 0.1 0.1")), refused=r"at least 0\.6 Å apart; .* at 0\.30 Å"),
    # Elements.
    "capital_symbols": Case(
        zno(rows=("A1 CU 0 0 0", "A2 CO .2 0 0", "A3 CL .4 0 0", "A4 NI .6 0 0", "A5 FE .8 0 0")),
        {"Cu": 1, "Co": 1, "Cl": 1, "Ni": 1, "Fe": 1},
        2.0,
    ),
    "labels_alone": Case(
        zno(rows=("Cu1 0 0 0", "C1A .2 0 0", "D1 .4 0 0", "O2W .6 0 0", "Co1 .8 0 0"), columns=LABELS),
        {"Cu": 1, "C": 1, "H": 1, "O": 1, "Co": 1},
        2.0,
        warned="carbon",
    ),
    "capital_labels_alone": Case(
        zno(rows=("CU1 0 0 0", "CL1 .5 0 0"), columns=LABELS),
        {"Cu": 1, "Cl": 1},
        5.0,
        warned="CU1 is read as Cu, not C",
    ),
    "capital_labels_and_formula": Case(
        "data_a\n_chemical_formula_sum 'C1 O1'\n" + cell(10) + P1 + sites("CA1 0 0 0", "O1 .113 0 0", columns=LABELS),
        {"C": 1, "O": 1},
        1.13,
    ),
    "molecules": Case(
        zno(rows=("Wat1 0 0 0", "OH1 .3 0 0", "Zn1 .6 0 0"), columns=LABELS),
        {"O": 2, "Zn": 1},
        3.0,
        warned="Wat1, OH1 in .* stand for molecules",
    ),
    "charges_and_isotopes": Case(
        zno(rows=("Zn1 Zn2+ 0.1 0.1 0.1", "O1 O-2 0.3 0.3 0.3", "D1 D .5 .5 .5", "T1 T .7 .7 .7")),
        {"Zn": 1, "O": 1, "H": 2},
        APART,
    ),
    "dummies": Case(
        zno(rows=(*ZNO, "X1 X 0.5 0.5 0.5", "Du1 Du 0.6 0.6 0.6")),
        refused="'X', the type of site X1, and 'Du', the type of site Du1",
    ),
    "bromine_is_no_missing_hydrogen": Case(
        crystal(
            cell(12),
            P1,
            "C1 C 0.5 0.5 0.5",
            "O1 O 0.5 0.6008 0.5",
            "Br1 Br 0.6371 0.4208 0.5",
            "Br2 Br 0.3629 0.4208 0.5",
        ),
        {"C": 1, "O": 1, "Br": 2},
        0.1008 * 12,
    ),
    # Files.
    "latin_1": Case(zno(before="data_a\n_publ_author_name 'Müller'\n").encode("latin-1"), TWO, APART),
    "latin_1_without_quotes": Case(zno(before="data_a\n_publ_author_name Müller\n").encode("latin-1"), TWO, APART),
    "byte_order_mark": Case(zno().encode("utf-8-sig"), TWO, APART),
    "utf_16": Case(zno().encode("utf-16"), TWO, APART),
    "carriage_returns": Case(zno().replace("\n", "\r\n").encode(), TWO, APART),
    "tabs_and_capitals": Case(
        zno().replace(" ", "\t").replace("_cell_length", "_CELL_LENGTH").replace("loop_", "LOOP_"), TWO, APART
    ),
    "dotted_tags": Case(zno().replace("_cell_", "_cell.").replace("_atom_site_", "_atom_site."), TWO, APART),
    "empty": Case("", refused=r"needs a CIF.*\(no data block\)"),
    "a_web_page": Case("<html><body>404</body></html>", refused="needs a CIF"),
    "no_atoms": Case("data_a\n" + cell(10) + P1, refused="needs atoms; got none"),
    "sites_in_two_loops": Case(
        zno(rows=("Zn1 Zn 0.1 0.1", "O1 O 0.3 0.3"), columns="label type_symbol fract_x fract_y")
        + "loop_\n_atom_site_fract_z\n0.1\n",
        refused="needs a value of _atom_site_fract_z for each of 2 sites; got 1",
    ),
    "cut_off": Case(zno()[:-6], refused="Wrong number of values in loop"),
}
