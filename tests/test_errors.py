"""The form of errors: parameters in Python, options on the command line."""

import pickle

import click
import pytest

import nntomo_dask as nt
from nntomo_dask.cli import options
from nntomo_dask.cli.main import _Lazy
from nntomo_dask.errors import SchemaError, refuse


@click.command()
@click.argument("volume")
@click.option("--pixels", "-p", type=int)
@click.option("--window")
@click.option("--field-of-view-nm", type=float)
@click.option("--detector-mrad")
@click.option("--sigma-nm")
@click.option("--overwrite", is_flag=True)
@click.option("--mirror/--no-mirror")
@click.option("--range", "tilt_range")
@click.option("--hidden", cls=options.SettingOption, setting="n_hidden")
def verb(**arguments):
    refuse("verb", needs="other `pixels`", got="few", remedy=f"set {arguments['window'] or '`pixels=58`'}")


@pytest.mark.parametrize(
    ("parameter", "option"),
    [
        ("pixels=58", "--pixels 58"),
        ("pixels", "--pixels"),
        ("pixels = 58", "--pixels 58"),
        ("field_of_view_nm", "--field-of-view-nm"),
        ("field_of_view_nm=2.5e0", "--field-of-view-nm 2.5e0"),
        ("overwrite=True", "--overwrite"),
        ("overwrite", "--overwrite"),
        ("overwrite=False", "overwrite=False"),  # there is no option for it
        ("mirror=False", "--no-mirror"),
        ('window="hann"', "--window hann"),
        ("window='hann'", "--window hann"),
        ('window="two words"', "--window 'two words'"),
        ("window=None", "--window none"),
        ("window=hann", "--window hann"),
        ("pixels=…", "--pixels …"),
        ("detector_mrad=(50, 80)", "--detector-mrad 50,80"),
        ('sigma_nm={"Zr": 0.006, "other": 0.01}', "--sigma-nm Zr=0.006,other=0.01"),
        ('tilt_range="tem"', "--range tem"),
        ("n_hidden=8", "--hidden 8"),
        ("volume=v", "volume=v"),  # an argument, not an option
        ("imaging", "imaging"),
        ("pixel=58", "pixel=58"),
    ],
)
def test_a_parameter_as_an_option(parameter, option):
    assert options.spelled(verb, parameter) == option


def test_python_shows_parameters_without_backticks():
    with pytest.raises(SchemaError) as caught:
        refuse("project", needs="other `pixels`", got="57", remedy='set `pixels=58` or `window="hann"`')
    assert str(caught.value) == 'project: needs other pixels; got 57; try: set pixels=58 or window="hann"'
    assert caught.value.args == ('project: needs other `pixels`; got 57; try: set `pixels=58` or `window="hann"`',)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("tilt_axis=y", 'tilt_axis="y"'),
        ("contrast=bright-field", 'contrast="bright-field"'),
        ("angles=FILE", "angles=FILE"),
        ("overwrite=True", "overwrite=True"),
        ("pixel_size=None", "pixel_size=None"),
        ("fill=0", "fill=0"),
        ("table='a.csv'", "table='a.csv'"),
    ],
)
def test_python_shows_words_in_quotes(raw, shown):
    assert str(SchemaError(f"try: `{raw}`")) == f"try: {shown}"
    assert SchemaError(f"try: `{raw}`").spelled(str) == f"try: {raw}"


def test_the_raw_text_survives_a_worker():
    """Errors of worker processes are pickled."""
    error = pickle.loads(pickle.dumps(SchemaError("a: needs `pixels`")))
    assert str(error) == "a: needs pixels"
    assert error.spelled(str.upper) == "a: needs PIXELS"


def test_the_command_line_shows_options(monkeypatch):
    monkeypatch.setattr(_Lazy, "get_command", lambda self, ctx, name: verb if name == "verb" else None)
    from click.testing import CliRunner

    group = _Lazy("nntomo")
    result = CliRunner().invoke(group, ["verb", "v.zarr"])
    assert result.exit_code == 2
    assert result.stderr == "Error: verb: needs other --pixels; got few; try: set --pixels 58\n"
    result = CliRunner().invoke(group, ["verb", "v.zarr", "--window", "`n_hidden=2` and `imaging`"])
    assert result.stderr.endswith("try: set --hidden 2 and imaging\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "UiO-66", "--pixels", "20"), "try: --pixels 91"),
        (("simulate", "UiO-66", "--field-of-view-nm", "1"), "raise --field-of-view-nm"),
        (("simulate", "UiO-66", "--shape", "sphere"), "try: --size-nm 3"),
        (("simulate", "UiO-66", "--shape", "sphere", "--repeat", "2", "--size-nm", "3"), "leave out --repeat"),
        (("simulate", "UiO-66", "--detector-mrad", "5,80"), "try: --detector-mrad 60,150"),
        (("simulate", "UiO-66", "--interpolation", "9"), "--interpolation"),
        (("simulate", "UiO-66", "--sigma-nm", "Zr=0.006"), "--sigma-nm by element"),
        (("simulate", "UiO-66", "--seed", "-1"), "try: --seed 0"),
        (("truth", "UiO-66", "--mode", "idpc", "--exponent", "2"), "leave out --exponent"),
    ],
)
@pytest.mark.extra("abtem")
def test_simulation_names_options(run, words, message):
    angles = ("--range", "full", "--count", 4) if words[0] == "simulate" else ()
    text = run(*words, *angles, "-o", "a.zarr", exit_code=2).output
    assert message in text
    assert "`" not in text
    assert "_" not in text.replace("ground_truth", "")


def test_backticks_never_reach_a_user_of_python():
    with pytest.raises(nt.SchemaError) as caught:
        nt.tilt_angles("full", 1)
    assert "`" not in str(caught.value)
