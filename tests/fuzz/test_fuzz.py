"""Some damages to every kind of file; see the package's docstring for more of them."""

import sys

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.fuzz.damage import HOWS, Damage
from tests.fuzz.driver import reader
from tests.fuzz.targets import KINDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and limits of POSIX")

numbers = st.integers(0, 2**20 - 1)


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    with reader(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


@given(st.builds(Damage, st.sampled_from(sorted(KINDS)), st.sampled_from(HOWS), numbers, numbers, numbers))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_damage_is_refused_or_changes_nothing(reading, damage):
    outcome = reading.try_out(damage)
    assert outcome.is_fine, outcome


def test_the_target_sees_what_goes_wrong(reading):
    """A kind whose checksums are not looked at would be found."""
    words = {reading.try_out(Damage("MRC", "flip", 0, 1024 + place, 1)).word for place in range(4)}
    assert words == {"changed as it may be"}
