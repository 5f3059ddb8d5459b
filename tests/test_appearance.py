"""What a series shows of its specimen, and materials that look like it."""

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.phantoms import layouts
from nntomo_dask.phantoms.composing import DISC
from nntomo_dask.phantoms.materials import Materials, scene
from nntomo_dask.phantoms.shapes import axis_of
from nntomo_dask.training.unrolled import UnrolledTraining, appearance as room
from nntomo_dask.training.unrolled.appearance import Appearance, appearance, seen_in
from nntomo_dask.training.unrolled.scenes import Scenes

ANGLES = nt.tilt_angles("tem", 8)
SEEN = Appearance(
    least_filled=0.1, most_filled=0.2, leaves=False, unevenness=0.05, lightest=0.8, smallest=0.2, largest=0.5
)


def balls(*radii, size=48, core=1.0):
    """A ball of radius `radii[0]` (half widths) with a shell of 0.5 where `core` is above it, others beside it."""
    axis = axis_of(size)
    z, y, x = np.meshgrid(axis_of(size)[size // 2 - 6 : size // 2 + 6], axis, axis, indexing="ij")
    volume = np.zeros(z.shape, np.float32)
    for number, radius in enumerate(radii):
        distance = np.sqrt(z**2 + (y - 0.7 * (number > 0)) ** 2 + x**2)
        volume[distance < radius] = core
        volume[distance < radius / 2] = 1
    return volume


class TestVolumes:
    """What is seen in volumes that are known."""

    def test_how_much_matter_fills(self):
        volume = balls(0.5)
        disc = axis_of(48)[:, None] ** 2 + axis_of(48) ** 2 <= DISC**2
        found = seen_in([volume, volume[:, :, :] * (np.arange(12) < 6)[:, None, None]], leaves=False)
        share = float((volume > 0).mean() / disc.mean())
        assert found.most_filled == pytest.approx(share, rel=1e-6)
        assert 0.4 * share < found.least_filled < 0.6 * share

    def test_one_density_or_several(self):
        even, uneven = seen_in([balls(0.5)], leaves=False), seen_in([balls(0.5, core=0.4)], leaves=False)
        assert even.unevenness < 1e-6
        assert uneven.unevenness > room._UNEVEN
        assert even.lightest == pytest.approx(1)
        assert uneven.lightest == pytest.approx(0.4)
        assert "looks like one density" in even.describe()
        assert "several or smooth densities" in uneven.describe()

    def test_sizes_of_bodies(self):
        """Half a pixel, a 48th, more or less; a tenth of the matter has to be as small as the smallest."""
        one = seen_in([balls(0.5)], leaves=False)
        assert one.largest == pytest.approx(0.5, abs=1.5 / 24)
        crowd = balls(0.15)
        assert seen_in([crowd], leaves=False).smallest < 0.16 < one.smallest

    def test_nothing(self):
        with pytest.raises(nt.SchemaError, match="a series that shows a specimen; got one that shows none"):
            seen_in([np.zeros((4, 16, 16), np.float32)], leaves=False)


@pytest.fixture(scope="module")
def series():
    return nt.project(nt.volume(balls(0.5)), ANGLES).compute()


class TestSeries:
    def test_what_is_found(self, series):
        found = appearance(series, who="test")
        true = seen_in([balls(0.5)], leaves=False)
        # Without noise total variation is nearly exact.
        assert found.most_filled == pytest.approx(true.most_filled, rel=0.1)
        assert found.unevenness < room._EVEN
        assert found.largest == pytest.approx(0.5, abs=2 / 24)
        assert not found.leaves

    def test_units_background_and_order_play_no_part(self, series, rng):
        noisy = series + np.float32(0.02) * np.float32(series.max()) * rng.standard_normal(series.shape, np.float32)
        one = appearance(noisy, who="test")
        changed = (np.float32(50) * (noisy + np.float32(3))).isel(angle=rng.permutation(8))
        other = appearance(changed, who="test")
        for name in ("least_filled", "most_filled", "unevenness", "lightest", "smallest", "largest"):
            # The background is known to the noise's own error, a hundredth of the brightest ray at most.
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=0.15), name

    def test_matter_that_leaves_the_field(self):
        whole = nt.project(nt.volume(balls(0.8)), ANGLES).compute()
        cut = whole.isel(detector=slice(12, -12))
        found = appearance(cut, who="test")
        assert found.leaves
        assert "leaves the field of view" in found.describe()
        assert found.narrowed(Materials()).most_filled == 1

    def test_what_is_refused(self, series):
        for bad, text in (
            (series * 0, "shows none"),
            (series.where(series.z > -1), "finite"),
        ):
            with pytest.raises(nt.SchemaError, match=text):
                appearance(bad, who="test")

    def test_sets(self, series):
        both = nt.phantom_scenes(series, prior="series", noise="none")
        sources = [Scenes.from_json(one.attrs["scenes"]) for one in both]
        wanted = appearance(series, who="test").narrowed(Materials())
        assert [one.drawn for one in sources] == [wanted] * 2
        assert wanted.one_density > 0.5
        training = UnrolledTraining(prior="series", noise="none")
        sets = training.sets_for(series, seed=0)
        assert [one.attrs for one in sets] == [one.attrs for one in both]
        (line,) = training.told(sets)
        assert "matter fills" in line
        wide = nt.phantom_scenes(series, noise="none")[0]
        assert Scenes.from_json(wide.attrs["scenes"]).settings == ()
        assert "appearance" not in wide.attrs

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"phantom": "bodies"}, "the phantom materials for a prior from the series; got bodies"),
            ({"prior": "narrow"}, 'a prior "wide" or "series"; got \'narrow\''),
        ],
    )
    def test_parameters_that_are_refused(self, series, change, text):
        with pytest.raises(nt.SchemaError, match=f"phantom_scenes: needs {text}"):
            nt.phantom_scenes(series, **{"prior": "series", "noise": "none"} | change)


class TestNarrowed:
    def test_it_is_wider_than_what_was_seen(self):
        found = SEEN.narrowed(Materials())
        assert found.least_filled <= 0.5 * 0.1
        assert found.most_filled >= 2 * 0.2
        assert found.lightest <= 0.4
        assert found.smallest <= 0.05
        assert found.largest >= 0.75
        assert 0 < 1 - found.one_density - found.smooth
        found.check()

    def test_its_own_settings_stay(self):
        own = Materials(lightest=0.6, smallest=0.1, largest=0.3, most_filled=0.3)
        found = SEEN.narrowed(own)
        assert (found.lightest, found.smallest, found.largest, found.most_filled) == (0.6, 0.1, 0.3, 0.3)

    @pytest.mark.parametrize("least", [0.0, 0.001, 0.9])
    @pytest.mark.parametrize("most", [0.001, 0.95, 1.0])
    @pytest.mark.parametrize("radius", [0.02, 1.0])
    def test_any_of_them_is_a_phantom(self, least, most, radius):
        for unevenness in (0.0, 0.13, 2.0):
            seen = Appearance(
                least_filled=min(least, most),
                most_filled=most,
                leaves=False,
                unevenness=unevenness,
                lightest=1.0,
                smallest=radius,
                largest=radius,
            )
            seen.narrowed(Materials()).check()


class TestFilling:
    def test_scenes_fill_what_they_should(self):
        """By what is looked at, coarser than the scene: some scenes are a little outside."""
        disc = axis_of(32)[:, None] ** 2 + axis_of(32) ** 2 <= DISC**2
        for low, high in ((0.02, 0.1), (0.3, 0.7)):
            wanted = Materials(least_filled=low, most_filled=high)
            shares = []
            for seed in range(8):
                drawn = scene(16, 8, np.random.default_rng(seed), settings=wanted)
                shares.append(float((drawn > 0).mean() / disc.mean()))
            assert np.mean([0.8 * low < share < 1.2 * high for share in shares]) > 0.9

    def test_by_default_nothing_changes(self, monkeypatch):
        """Neither what is drawn nor the recipe: any share fits."""
        usual = nt.phantom("materials", (16, 24, 24), seed=3)
        assert not {"least_filled", "most_filled"} & set(usual.attrs["recipe"]["parameters"])
        changed = nt.phantom("materials", (16, 24, 24), seed=3, most_filled=0.5)
        assert changed.attrs["recipe"]["parameters"]["most_filled"] == 0.5
        tries = []
        palette = layouts._palette
        monkeypatch.setattr(layouts, "_palette", lambda *arguments: tries.append(1) or palette(*arguments))
        for seed in range(20):
            layouts.sketched(np.random.default_rng(seed), 0.5, Materials())
        assert len(tries) < 40

    def test_contradictions(self):
        with pytest.raises(nt.SchemaError, match=r"at most half of most_filled; got 0\.2 and 0\.3"):
            Materials(least_filled=0.2, most_filled=0.3).check()
