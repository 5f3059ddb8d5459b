"""Finding where the projections of a raw series lie: each step, and all of them."""

import functools
import warnings

import dask.array as da
import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.alignment import coarse, left_out, matching, moments, prepare, progress, tilt_axis
from nntomo_dask.alignment.views import Pose, Views, without_gauge
from nntomo_dask.kernels import project, warp
from tests.shared_data import NEEDLE

SIZE, VIEWS = 48, 13
ANGLES = np.linspace(-72, 72, VIEWS)


def specimen(seed=0, size=2 * SIZE, beyond=1.0, angles=ANGLES):
    """Projections (view, along, across) of balls about the axis, on a grid twice as fine."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[(np.arange(size) - (size - 1) / 2) * 2 / size] * 3, indexing="ij", sparse=True)
    volume = np.zeros((size,) * 3, np.float32)
    for centre in rng.uniform(-0.42, 0.42, (14, 3)) * [1, beyond, beyond]:
        squares = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        volume += np.exp(-squares / (2 * rng.uniform(0.04, 0.09) ** 2))
    return np.moveaxis(project.forward(volume, np.deg2rad(angles)), 1, 0)


def recorded(fine, pose, *, counts=None, seed=1):
    """What a microscope records of projections that lie in a pose, in bins of 2 × 2; noise-free without counts."""
    turns = np.deg2rad(pose.rotation_deg)
    cos, sin = np.cos(turns), np.sin(turns)
    along, across = pose.shifts.T
    back = -2 * np.column_stack([cos * along - sin * across, sin * along + cos * across])
    grid = [np.arange(size) - (size - 1) / 2 for size in fine.shape[1:]]
    images = warp.warp(warp.coefficients(fine), *grid, back, -pose.rotation_deg)
    images = images.reshape(len(fine), fine.shape[1] // 2, 2, fine.shape[2] // 2, 2).mean(axis=(2, 4))
    images = np.maximum(images, 0)
    if counts is None:
        return images
    return np.random.default_rng(seed).poisson(images * (counts / images.max())).astype(np.float32)


def drifted(seed=2, *, rotation_deg=2.0, axis_px=3.0, drift=2.5, count=VIEWS):
    shifts = np.random.default_rng(seed).uniform(-drift, drift, (count, 2)) + np.array([0, axis_px])
    return Pose(shifts, np.full(count, rotation_deg))


def remains(found, truth, angles=ANGLES):
    """Root mean square of shifts that are wrong, (along, across)."""
    off = without_gauge(found.shifts - truth.shifts, np.deg2rad(angles))
    return np.sqrt((off**2).mean(axis=0))


def labelled(images, angles=ANGLES):
    return nt.tilt_series(np.ascontiguousarray(np.moveaxis(images, 0, 1)), angles)


def table_pose(table):
    return Pose(np.column_stack([table.along_px, table.across_px + table.axis_px]), table.rotation_deg)


FINE = specimen()
TRUTH = drifted()
RAW = recorded(FINE, TRUTH, counts=1000)


class TestPose:
    def test_turning_keeps_what_is_in_the_middle(self):
        """R(φ) d is where the aligned middle lies in the raw image."""
        pose = drifted(rotation_deg=5.0)

        def seen(one):
            turns = np.deg2rad(one.rotation_deg)
            along, across = one.shifts.T
            return along * np.cos(turns) - across * np.sin(turns), along * np.sin(turns) + across * np.cos(turns)

        np.testing.assert_allclose(seen(pose.turned(7.0)), seen(pose), atol=1e-12)

    @pytest.mark.parametrize("factor", [2, 3, 5])
    def test_a_binned_view_lies_where_the_whole_one_does(self, factor):
        """Also where pixels are left over: a slope has the same values at the same places."""
        slope = np.arange(147, dtype=np.float32)[:, None] + 3 * np.arange(138, dtype=np.float32)
        views = Views(slope[None], np.zeros(1))
        bins = views.binned(factor)
        pose = Pose(np.array([[1.5, -2.0]]), np.array([4.0]))
        places = np.array([-1.0, 0.0, 1.0])
        found = bins.at(pose, places, places)
        expected = views.at(pose, places * factor, places * factor)
        # Float32 coefficients of values up to 560; the mirrored ends of the slope are 12 pixels and more away.
        np.testing.assert_allclose(found, expected, atol=1e-3)


class TestPrepare:
    def test_background_is_the_level_of_the_empty_part(self):
        rng = np.random.default_rng(3)
        images = RAW[:3] + np.array([0, 500, -31900], np.float32)[:, None, None]
        images += rng.normal(0, 1, images.shape).astype(np.float32)
        # The mean of a narrow part of a distribution one count wide.
        np.testing.assert_allclose(prepare.background(images), [0, 500, -31900], atol=1.0)

    def test_where_nothing_is_empty_there_is_no_background(self):
        uniform = np.random.default_rng(4).uniform(0, 1, (1, 40, 40)).astype(np.float32)
        assert prepare.background(100 + 800 * uniform) == [0]
        # A little denser at the lower end, but in no narrow interval; and a narrow one that is not at the end.
        assert prepare.background(100 + 800 * uniform**1.2) == [0]
        uniform[0, :4] = 0.3
        assert prepare.background(100 + 800 * uniform) == [0]

    def test_hot_and_dead_pixels_are_replaced_and_edges_stay(self):
        images = RAW[[2, 5]]
        dead = np.unravel_index(images[1].argmax(), images[1].shape)
        truth = images.copy()
        images[0, 20, 24], images[(1, *dead)] = 30000, 0
        clean, count = prepare.without_stray_pixels(images)
        assert count == 2
        # Medians of neighbours on balls of a deviation of two pixels: a quarter of their height; and noise.
        assert abs(clean[0, 20, 24] - truth[0, 20, 24]) < 300
        assert abs(clean[(1, *dead)] - truth[(1, *dead)]) < 300
        assert (clean != truth).sum() <= 2

    def test_empty_and_other_views_are_flagged(self):
        images = RAW.copy()
        images[4], images[9] = 0, images[9] * 3
        assert np.flatnonzero(prepare.prepare(images).flagged).tolist() == [4, 9]

    def test_intensities_are_those_of_rows_that_all_views_have(self):
        factors = np.random.default_rng(5).uniform(0.8, 1.25, VIEWS)
        views = Views((RAW * factors[:, None, None]).astype(np.float32), ANGLES)
        found = prepare.intensities(views, TRUTH)
        # The noise of some 300,000 counts a view, and rows that end between pixels.
        np.testing.assert_allclose(found / factors, np.median(found / factors), rtol=0.01)


class TestCoarse:
    def test_along_the_axis_by_mass_profiles(self):
        found = coarse.along_shifts(Views(RAW, ANGLES), Pose.at_rest(VIEWS, TRUTH.rotation_deg[0]))
        assert remains(found, TRUTH)[0] < 0.25

    def test_large_shifts_along_do_not_wrap_around(self):
        truth = Pose(TRUTH.shifts.copy(), TRUTH.rotation_deg)
        truth.shifts[3, 0], truth.shifts[8, 0] = 9.0, -9.0
        views = Views(recorded(FINE, truth), ANGLES)
        found = coarse.along_shifts(views, Pose.at_rest(VIEWS, TRUTH.rotation_deg[0]))
        assert remains(found, truth)[0] < 0.5

    def test_across_the_axis_by_centres_of_mass(self):
        views = Views(RAW, ANGLES)
        found = coarse.centred(views, Pose(TRUTH.shifts * [1, 0], TRUTH.rotation_deg))
        # Centres of 300,000 counts spread over 10 pixels: 0.02, and what is cut off at the ends.
        assert remains(found, TRUTH)[1] < 0.1

    def test_the_fit_of_centres_finds_place_and_orbit(self):
        radians = np.deg2rad(ANGLES)
        found = coarse.centre_of_mass_fit(3 * np.cos(radians) - 2 * np.sin(radians) + 5, radians)
        np.testing.assert_allclose(found, (3, -2, 5), atol=1e-10)

    def test_whether_all_mass_is_in_view_is_seen_at_the_edges(self):
        views = Views(RAW, ANGLES)
        assert coarse.all_mass_in_view(views, TRUTH)
        cut = Views(np.ascontiguousarray(RAW[:, :, 14:-14]), ANGLES)
        assert not coarse.all_mass_in_view(cut, TRUTH)

    def test_stretched_neighbours_align_a_flat_specimen(self):
        """Stripes on a plane: each view is the one at 0° compressed by the cosine of its tilt."""
        across = np.arange(96) - 47.5
        lines = np.random.default_rng(6).uniform(-90, 90, 20)
        truth = np.random.default_rng(7).uniform(-3, 3, VIEWS)
        radians = np.deg2rad(ANGLES)
        images = np.zeros((VIEWS, 8, 96), np.float32)
        for view in range(VIEWS):
            places = (across - truth[view]) / np.cos(radians[view])
            images[view] = np.exp(-((places[:, None] - lines) ** 2) / 18).sum(axis=1)
        found = coarse.stretched_shifts(Views(images, ANGLES), Pose.at_rest(VIEWS))
        off = without_gauge(np.column_stack([np.zeros(VIEWS), found.shifts[:, 1] - truth]), radians)
        # Errors of the correlation, 0.1 or less a neighbour, add up over six steps.
        assert np.abs(off[:, 1]).max() < 1.0
        assert np.sqrt((off[:, 1] ** 2).mean()) < 0.3 * np.sqrt(
            (without_gauge(np.column_stack([truth, truth]), radians)[:, 1] ** 2).mean()
        )

    def test_a_lag_is_found_between_pixels_and_never_around_the_end(self):
        places = np.arange(40)

        def bump(at):
            return np.exp(-((places - at) ** 2) / 8)

        # The error of a parabola through three samples of a Gaussian's autocorrelation.
        assert coarse.lag(bump(22.3), bump(19.0), 20) == pytest.approx(3.3, abs=0.05)
        assert abs(coarse.lag(bump(3), bump(36), 20) - 7) > 3


class TestTiltAxis:
    @pytest.mark.parametrize("rotation_deg", [-7.0, 2.0])
    def test_the_common_line_tells_the_direction(self, rotation_deg):
        images = recorded(FINE, drifted(rotation_deg=rotation_deg), counts=1000)
        found = tilt_axis.common_line(Views(images, ANGLES), Pose.at_rest(VIEWS), reach_deg=12)
        assert abs(found.rotation_deg - rotation_deg) < 0.5
        assert found.agreement > 0.9
        assert not found.at_end

    def test_a_direction_beyond_the_reach_is_noticed(self):
        images = recorded(FINE, drifted(rotation_deg=9.0), counts=1000)
        assert tilt_axis.common_line(Views(images, ANGLES), Pose.at_rest(VIEWS), reach_deg=4).at_end

    @pytest.mark.parametrize("place", [-3.0, 2.25])
    def test_opposite_views_tell_the_place(self, place):
        angles = np.linspace(-90, 90, 11)
        truth = Pose(np.tile([0.0, place], (11, 1)), np.zeros(11))
        views = Views(recorded(specimen(angles=angles), truth), angles)
        assert tilt_axis.axis_place(views, Pose.at_rest(11)) == pytest.approx(place, abs=0.05)
        assert tilt_axis.axis_place(Views(RAW, ANGLES), TRUTH) is None


class TestMoments:
    @pytest.mark.parametrize("gain", ["equal", "unequal"])
    def test_finds_shifts_rotation_and_intensity(self, gain):
        factors = np.ones(VIEWS) if gain == "equal" else np.random.default_rng(8).uniform(0.9, 1.1, VIEWS)
        views = Views((RAW * factors[:, None, None]).astype(np.float32), ANGLES)
        start = coarse.centred(views, coarse.along_shifts(views, Pose.at_rest(VIEWS)))
        found = moments.fit_moments(views, start)
        # 300,000 counts a view, 10 pixels wide: 0.02 across; along about the same. Three times as much.
        assert (remains(found.pose, TRUTH) < 0.06).all()
        assert abs(found.pose.rotation_deg[0] - TRUTH.rotation_deg[0]) < 0.25
        relative = found.intensity / factors
        np.testing.assert_allclose(relative, np.median(relative), rtol=0.01)
        assert found.misfit_px < 0.3
        assert found.steps <= 8  # with wrong derivatives it needs more, or does not end

    def test_puts_the_object_on_the_axis(self):
        beside = TRUTH.moved(np.column_stack([np.zeros(VIEWS), 5 * np.cos(np.deg2rad(ANGLES))]))
        found = moments.fit_moments(Views(RAW, ANGLES), beside).pose
        centred = coarse.centred(Views(RAW, ANGLES), found)
        # Rows at the ends are in one centre and not in the other.
        np.testing.assert_allclose(centred.shifts[:, 1], found.shifts[:, 1], atol=0.5)

    def test_a_rotation_that_is_fixed_stays(self):
        found = moments.fit_moments(Views(RAW, ANGLES), TRUTH, turning="fixed")
        np.testing.assert_array_equal(found.pose.rotation_deg, TRUTH.rotation_deg)


class TestMatching:
    def test_removes_what_a_rough_alignment_leaves(self):
        rng = np.random.default_rng(9)
        start = TRUTH.moved(rng.uniform(-0.7, 0.7, (VIEWS, 2)))
        found = matching.refine_by_matching(Views(RAW, ANGLES), start, turning="fixed")
        assert (remains(found.pose, TRUTH) < 0.06).all()
        assert found.levels[-1].binning == 1
        assert found.levels[-1].last_step_px < 0.01

    def test_refines_one_rotation_for_all_views(self):
        start = TRUTH.turned(1.5)
        found = matching.refine_by_matching(Views(RAW, ANGLES), start, turning="common")
        assert np.ptp(found.pose.rotation_deg) == 0
        assert abs(found.pose.rotation_deg[0] - TRUTH.rotation_deg[0]) < 0.75

    def test_matter_beyond_the_field_does_not_mislead_it(self):
        wide = recorded(specimen(beyond=1.6), TRUTH, counts=1000)
        views = Views(np.ascontiguousarray(wide[:, :, 6:-6]), ANGLES)
        assert not coarse.all_mass_in_view(views, TRUTH)
        start = TRUTH.moved(np.random.default_rng(10).uniform(-0.7, 0.7, (VIEWS, 2)))
        found = matching.refine_by_matching(views, start, turning="fixed", mass="beyond")
        before = remains(start, TRUTH)
        assert (remains(found.pose, TRUTH) < 0.35 * before).all()

    def test_time_is_bounded(self, monkeypatch):
        """Where five iterations are too many, a level and all finer ones are left out; where thirty are, some are."""
        one = VIEWS * SIZE * SIZE**2 * 2 * 24  # an iteration of all rows at the finest level; 1/8 of it in bins of 2
        monkeypatch.setattr(matching, "_WORK", 2 * one)
        found = matching.refine_by_matching(Views(RAW, ANGLES), TRUTH, turning="fixed")
        assert ([level.binning for level in found.levels], found.left_out) == ([2], (1,))
        monkeypatch.setattr(matching, "_WORK", 5 * one * 32 // SIZE)  # there is one run of 32 rows
        start = TRUTH.moved(np.random.default_rng(9).uniform(-1, 1, (VIEWS, 2)))
        found = matching.refine_by_matching(Views(RAW, ANGLES), start, turning="fixed", binnings=(1,), most_rows=SIZE)
        assert (found.left_out, found.levels[0].rows, found.levels[0].iterations) == ((), 32, 5)

    def test_rows_that_are_spread_suffice(self):
        start = TRUTH.moved(np.random.default_rng(9).uniform(-0.7, 0.7, (VIEWS, 2)))
        found = matching.refine_by_matching(Views(RAW, ANGLES), start, turning="fixed", binnings=(1,), most_rows=32)
        assert found.levels[0].rows == 32
        assert (remains(found.pose, TRUTH) < 0.12).all()


class TestLeftOut:
    def test_a_view_that_is_wrong_is_predicted_worst(self):
        views = Views(RAW, ANGLES)
        well = left_out.prediction_errors(views, TRUTH)
        wrong = TRUTH.moved(np.eye(VIEWS)[6][:, None] * [1.5, 1.5])
        worse = left_out.prediction_errors(views, wrong)
        assert np.argmax(worse / well) == 6

    def test_angles_are_corrected_towards_the_truth(self):
        angles = np.linspace(-72, 72, 25)
        off = np.zeros(angles.size)
        off[[6, 13, 18]] = 1.5, -1.5, 1.5
        truth = drifted(count=angles.size)
        views = Views(recorded(specimen(angles=angles + off), truth), angles)
        found = left_out.angle_corrections(views, truth, rounds=1, most_rows=32)
        assert (found[[0, 1, -2, -1]] == 0).all()
        # Their mean is not observable.
        assert (found - off)[2:-2].std() < 0.6 * off[2:-2].std()


class TestAlign:
    @pytest.mark.parametrize("refine", ["auto", "matching"])
    def test_finds_what_is_known(self, refine):
        table = nt.align(labelled(RAW), refine=refine)
        assert (remains(table_pose(table), TRUTH) < 0.08).all()
        assert abs(table.rotation_deg[0] - TRUTH.rotation_deg[0]) < 0.25
        assert not table.flagged.any()
        assert table.provenance["align"]["mass"] == "in view"

    def test_the_aligned_series_is_consistent(self):
        """Read as the table says, each view shows what the undrifted specimen does."""
        table = nt.align(labelled(RAW))
        found = Views(RAW, ANGLES).at(table_pose(table)).sum(axis=2)[:, 6:-6]
        # The same mass in each row of each view; noise of 10,000 counts a row is 1 %.
        assert (found.std(axis=0) < 0.03 * found.max()).all()

    def test_chunks_and_order_change_nothing(self):
        table = nt.align(labelled(RAW))
        chunked = labelled(RAW).chunk(z=5)
        other = nt.align(chunked)
        order = np.random.default_rng(11).permutation(VIEWS)
        mixed = nt.align(labelled(RAW[order], ANGLES[order]))
        for name in ("along_px", "across_px", "rotation_deg", "flagged", "axis_px"):
            np.testing.assert_array_equal(getattr(other, name), getattr(table, name))
            wanted = getattr(table, name)
            np.testing.assert_array_equal(getattr(mixed, name), wanted if name == "axis_px" else wanted[order])
        np.testing.assert_array_equal(mixed.angles_deg, ANGLES[order])

    def test_flagged_views_do_not_disturb_the_others(self):
        images = RAW.copy()
        images[5] = 0
        table = nt.align(labelled(images))
        assert np.flatnonzero(table.flagged).tolist() == [5]
        kept = np.delete(np.arange(VIEWS), 5)
        pose, truth = (Pose(one.shifts[kept], one.rotation_deg[kept]) for one in (table_pose(table), TRUTH))
        assert (remains(pose, truth, ANGLES[kept]) < 0.1).all()

    def test_a_background_and_a_known_rotation_are_taken_into_account(self):
        table = nt.align(labelled(RAW - 31900), rotation_deg=float(TRUTH.rotation_deg[0]))
        assert (table.rotation_deg == TRUTH.rotation_deg).all()
        assert (remains(table_pose(table), TRUTH) < 0.08).all()

    def test_what_is_said_of_the_axis_is_where_the_search_starts(self):
        steep = drifted(rotation_deg=32.0)
        series = labelled(recorded(FINE, steep, counts=1000)).assign_attrs(tilt_axis_deg=-30.0)
        assert abs(nt.align(series).rotation_deg[0] - 32.0) < 0.5

    def test_few_degrees_give_shifts_and_say_so(self):
        angles = np.array([-5.0, 0.0, 5.0])
        truth = drifted(count=3, rotation_deg=0.0, axis_px=0.0)
        images = recorded(specimen(angles=angles), truth, counts=1000)
        with pytest.warns(UserWarning, match="span 10 degrees, from which the tilt axis cannot be found"):
            table = nt.align(labelled(images, angles))
        assert (table.rotation_deg == 0).all()
        assert table.axis_px == 0
        off = table_pose(table).shifts - truth.shifts
        # A ball 20 pixels from the axis moves by 0.08 px against what its tilt makes of it, others by less.
        assert (off.std(axis=0) < 0.25).all()
        assert (truth.shifts.std(axis=0) > 0.8).all()

    def test_what_it_does_is_told(self):
        wide = recorded(specimen(beyond=1.6), TRUTH, counts=1000)
        lines = []
        with progress.heard_by(lines.append):
            nt.align(labelled(np.ascontiguousarray(wide[:, :, 6:-6])), rotation_deg=2.0)
        nt.align(labelled(RAW))
        steps = [line for line in lines if line.startswith("matching in bins of 1: iteration ")]
        assert steps[0].startswith("matching in bins of 1: iteration 1 of 30 at most, step ")
        assert lines[0].startswith("first steps")
        assert lines[-1] == steps[-1]  # nothing of the second, to which nobody listened

    @pytest.mark.parametrize(("said_deg", "given_deg", "warned"), [(30.0, 122.0, True), (-10.0, 32.0, False)])
    def test_a_direction_that_contradicts_the_views_is_told(self, said_deg, given_deg, warned):
        """32 degrees are right; where the series says something else, the one that is given is not doubted."""
        images = recorded(FINE, drifted(rotation_deg=32.0), counts=1000)
        series = labelled(images).assign_attrs(tilt_axis_deg=-said_deg)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = nt.align(series, rotation_deg=given_deg, refine="none")
        assert (table.rotation_deg == given_deg).all()
        told = [str(one.message) for one in caught if "the views agree better with one at -3" in str(one.message)]
        assert len(told) == warned

    def test_a_large_series_is_binned_as_it_is_read(self, monkeypatch):
        from nntomo_dask.alignment import align as room

        monkeypatch.setattr(room, "_WHOLE_BYTES", RAW.nbytes // 2)
        monkeypatch.setattr(room, "_SLAB_BYTES", RAW.nbytes // 4)
        table = nt.align(labelled(RAW))
        assert table.provenance["align"]["prepared"]["binning"] == 2
        assert (remains(table_pose(table), TRUTH) < 0.15).all()

    def test_a_specimen_larger_than_the_field_is_matched(self):
        wide = recorded(specimen(beyond=1.6), TRUTH, counts=1000)
        table = nt.align(labelled(np.ascontiguousarray(wide[:, :, 6:-6])), rotation_deg=2.0)
        assert table.provenance["align"]["mass"] == "beyond"
        assert table.provenance["align"]["matching"]

    def test_it_is_said_when_matching_does_not_settle(self, monkeypatch):
        short = functools.partial(matching.refine_by_matching, iterations=1)
        monkeypatch.setattr(matching, "refine_by_matching", short)
        rough = Pose(TRUTH.shifts * 2, TRUTH.rotation_deg)
        images = np.ascontiguousarray(recorded(specimen(beyond=1.6), rough, counts=1000)[:, :, 6:-6])
        with pytest.warns(UserWarning, match="did not settle"):
            nt.align(labelled(images), rotation_deg=2.0)

    def test_the_needle(self):
        """A raw series of 91 views: its axis is 10 degrees off, and it drifted by some five pixels."""
        with mrcfile.open(NEEDLE / "needle.mrc", permissive=True) as found:
            images = np.swapaxes(found.data.astype(np.float32), 1, 2)
        angles = np.loadtxt(NEEDLE / "needle.rawtlt")
        table = nt.align(labelled(images, angles))
        assert 9 < table.rotation_deg[0] < 11.5
        assert not table.flagged.any()
        ground = prepare.background(images)[:, None, None].astype(np.float32)
        pair = nt.projector(angles, images.shape[2])

        def residual(views):
            rows = labelled(views, angles)
            return float(np.linalg.norm(pair.forward(nt.fbp(rows).values) - rows.values) / np.linalg.norm(rows.values))

        before = images - ground
        after = Views(before, angles).at(table_pose(table))
        assert residual(after) < 0.5 * residual(before)


class TestRefusals:
    def untouched(self, shape, angles):
        """A series that must not be computed."""

        def read(block):
            raise AssertionError("read")

        values = da.zeros(shape, np.float32, chunks=(8, *shape[1:])).map_blocks(
            read, dtype=np.float32, meta=np.empty((0,) * 3, np.float32)
        )
        return nt.tilt_series(values, angles)

    @pytest.mark.parametrize(
        ("count", "size", "options", "message"),
        [
            (2, 32, {}, "3 projections or more"),
            (5, 12, {}, "16 pixels or more"),
            (5, 32, {"refine": "best"}, "refine"),
            (5, 32, {"rotation_deg": np.nan}, "rotation"),
            (5, 32, {"reach_deg": 120}, "reach"),
            (5, 32, {"tilt_angles": "any"}, "tilt_angles"),
        ],
    )
    def test_before_anything_is_read(self, count, size, options, message):
        with pytest.raises(nt.SchemaError, match=message):
            nt.align(self.untouched((size, count, size), np.linspace(-60, 60, count)), **options)

    def test_views_without_anything(self):
        with pytest.raises(nt.SchemaError, match="show something"):
            nt.align(labelled(np.full_like(RAW, 515)))

    def test_noise_alone(self):
        noise = np.random.default_rng(12).poisson(20, RAW.shape).astype(np.float32)
        with pytest.raises(nt.SchemaError, match=r"in common|show something"):
            nt.align(labelled(noise))

    def test_nan(self):
        images = RAW.copy()
        images[3, 4, 5] = np.nan
        with pytest.raises(nt.SchemaError, match="finite"):
            nt.align(labelled(images))

    def test_shifts_larger_than_half_the_image(self):
        angles = np.linspace(-60, 60, 7)
        blob = np.exp(-((np.arange(64) - 12) ** 2) / 18)
        images = np.tile((blob[:, None] * np.exp(-((np.arange(64) - 32) ** 2) / 50)).astype(np.float32), (7, 1, 1))
        images[3] = images[3, ::-1]
        with pytest.raises(nt.SchemaError, match="half the image"):
            nt.align(labelled(images, angles))
