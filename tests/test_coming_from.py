"""The pages for users of other programs name functions and options that exist."""

import re
from pathlib import Path

import click
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


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (HOWTO / page).read_text())
    there = [link for link in links if (HOWTO / link).exists()]
    assert links == there
