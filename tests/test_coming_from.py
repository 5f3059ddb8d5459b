"""The guides name functions and options that exist, and the one of a measured series runs."""

import re
from pathlib import Path

import click
import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.cli.main import main

HOWTO = Path(__file__).parents[1] / "docs" / "howto"
PAGES = ("axes.md", "coming_from.md")


def options() -> set[str]:
    """All options of all verbs."""
    context = click.Context(main)
    verbs = [main.get_command(context, name) for name in main.list_commands(context)]
    return {
        option
        for verb in verbs
        if verb is not None
        for one in verb.get_params(click.Context(verb))
        for option in getattr(one, "opts", ())
        if option.startswith("--")
    }


@pytest.mark.parametrize("page", PAGES)
def test_functions_exist(page):
    names = set(re.findall(r"\bnt\.(\w+)", (HOWTO / page).read_text()))
    assert {name for name in names if not hasattr(nt, name)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_options_and_verbs_exist(page):
    text = (HOWTO / page).read_text()
    assert set(re.findall(r"(--[a-z][a-z-]+)", text)) - options() == set()
    verbs = set(re.findall(r"`nntomo (\w+)", text))
    assert verbs - set(main.list_commands(click.Context(main))) == set()


def test_the_guide_of_a_measured_series_runs(run, tmp_path, rng):
    """Its first block, as it stands, but for the assessment, which tests/test_assess.py makes."""
    text = (HOWTO / "measured_series.md").read_text()
    lines = re.search(r"```\n(nntomo import .*?)```", text, re.DOTALL)[1].splitlines()
    angles = np.arange(-70.0, 71, 10)
    images = nt.project(nt.nanoparticle((32, 40, 40), seed=2), angles).values.swapaxes(0, 1)
    images = [
        np.roll(image, rng.integers(-3, 4, 2), (0, 1)) for image in 100 * np.pad(images, ((0, 0), (4, 4), (0, 0)))
    ]
    with mrcfile.new(tmp_path / "series.mrc") as mrc:
        mrc.set_data(rng.poisson(np.stack(images) + 20).astype(np.int16))
    nt.write_tilt_angles(angles, tmp_path / "series.rawtlt")
    for line in lines:
        program, verb, *words = line.split()
        assert program == "nntomo"
        if verb != "assess":
            run(verb, *words)
    assert (tmp_path / "aligned.quality/index.html").exists()
    volume = nt.read(tmp_path / "volume.mrc", kind="volume")
    assert float(volume.max()) > 50
    assert np.abs(nt.read_alignment(tmp_path / "aligned.csv").across_px).max() > 1


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (HOWTO / page).read_text())
    there = [link for link in links if (HOWTO / link).exists()]
    assert links == there
