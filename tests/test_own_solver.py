"""The page about solvers of one's own, run as it stands."""

import doctest
import re
from pathlib import Path

import pytest

import nntomo_dask as nt

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "own_solver.md"


@pytest.fixture
def names(tmp_path):
    yield {"__name__": "own_solver", "folder": tmp_path}
    nt.METHODS.unregister("my-cgls")


def test_the_page(names):
    parts = re.findall(r"```(python|pycon)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [kind for kind, _ in parts] == ["python", "pycon", "python", "pycon"]
    assert len(parts[0][1].splitlines()) < 40
    report = []
    for kind, text in parts:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(text, names, str(PAGE), None, None)
            doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
            names.update(test.globs)
    assert report == []
