"""The page that adds a network, run as it stands."""

import doctest
import re
from pathlib import Path

import pytest

import nntomo_dask as nt

PAGE = Path(__file__).parents[1] / "docs" / "add_a_network.md"


@pytest.fixture
def registry():
    """Kinds that a test registers are forgotten afterwards."""
    yield
    for known in (nt.NETWORKS, nt.METHODS):
        known.unregister("blend")


def test_the_page(tmp_path, registry):
    text = PAGE.read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(program.splitlines()) < 75
    names = {"__name__": "blend", "folder": tmp_path}
    exec(compile(program, str(PAGE), "exec"), names)
    (session,) = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(session, names, str(PAGE), None, None)
    assert len(test.examples) == 7
    report = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert report == []
