"""What draws, serves and scrolls through a store: its pixels are compared with those of the array."""

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from skimage.io import imread

import nntomo_dask as nt
from nntomo_dask import extras
from nntomo_dask.arrays.blocks import halved
from nntomo_dask.plotting import png, serving, showing
from tests import measured


@pytest.fixture
def a_volume(rng):
    return nt.volume(rng.random((11, 24, 24), np.float32), pixel_size=0.5, units="nm").chunk(z=(4, 1, 6))


@pytest.fixture
def a_series(rng):
    return nt.tilt_series(
        rng.random((10, 5, 24), np.float32), [0, 20, -30, 40, 61.5], pixel_size=0.5, units="nm"
    ).chunk(z=3)


class TestPng:
    def test_another_library_reads_it(self, tmp_path, rng):
        image = rng.integers(0, 256, (7, 13), dtype=np.uint8)
        (tmp_path / "a.png").write_bytes(png.encoded(image))
        np.testing.assert_array_equal(imread(tmp_path / "a.png"), image)

    def test_greys(self):
        image = np.array([[-1, 0, 0.5, 1, 2, np.nan]], np.float32)
        assert png.greys(image, (0.0, 1.0)).tolist() == [[0, 0, 128, 255, 255, 0]]


class TestScroll:
    def shown(self, scroll, tmp_path):
        """The images in its HTML."""
        found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", scroll._repr_html_())
        images = []
        for text in found:
            (tmp_path / "one.png").write_bytes(base64.b64decode(text))
            images.append(imread(tmp_path / "one.png"))
        return images

    @pytest.mark.parametrize("axis", ["z", "y", "x"])
    def test_slices_of_a_volume(self, a_volume, tmp_path, axis):
        scroll = nt.scroll(a_volume, axis=axis, window=(0, 1), count=200)
        images = self.shown(scroll, tmp_path)
        assert len(images) == a_volume.sizes[axis]
        for place, image in enumerate(images):
            wanted = a_volume.isel({axis: place}).values[::-1]  # upright
            np.testing.assert_array_equal(image, png.greys(wanted, (0, 1)))

    def test_projections_and_sinograms(self, a_series, tmp_path):
        scroll = nt.scroll(a_series, window=(0, 1))
        for place, image in enumerate(self.shown(scroll, tmp_path)):
            np.testing.assert_array_equal(image, png.greys(a_series.values[::-1, place], (0, 1)))
        assert scroll.labels[4] == "61.5° (5 of 5)"
        sinograms = self.shown(nt.scroll(a_series, axis="z", window=(0, 1)), tmp_path)
        np.testing.assert_array_equal(sinograms[3], png.greys(a_series.values[3], (0, 1)))

    @pytest.mark.parametrize("slabs", [1, 4, 11])
    def test_fewer_slices_and_pixels(self, a_volume, tmp_path, slabs):
        volume = a_volume.chunk(z=slabs)
        images = self.shown(nt.scroll(volume, axis="y", count=3, pixels=8, window=(0, 1)), tmp_path)
        assert len(images) == 3
        for place, image in zip((0, 12, 23), images, strict=True):
            wanted = volume.values[::2, place, ::3][::-1]  # 11 slices, 24 columns
            np.testing.assert_array_equal(image, png.greys(wanted, (0, 1)))

    def test_names_in_the_page_are_text(self, a_volume):
        """The name of an array may come from a file of a stranger."""
        page = nt.scroll(a_volume.rename("<script>alert(1)</script>"))._repr_html_()
        assert "<script" not in page

    def test_a_page_of_its_own(self, a_volume, tmp_path):
        path = nt.scroll(a_volume, count=2).save(tmp_path / "a.html")
        assert path.read_text().startswith("<!doctype html>")
        assert "http" not in path.read_text()  # it needs nothing else

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"axis": "angle"}, 'needs an axis "z" or "y" or "x"'),
            ({"count": 0}, "needs count from 1 to 256"),
            ({"pixels": 10**6}, "needs pixels from 1 to 2048"),
            ({"window": (1, 0)}, "needs a window from black to white"),
        ],
    )
    def test_bad_input(self, a_volume, keywords, message):
        with pytest.raises(nt.SchemaError, match=message):
            nt.scroll(a_volume, **keywords)


class TestSlices:
    def test_across_z_they_are_the_array(self, a_volume):
        slices = serving.Slices.of(a_volume, level=1)
        low, high = float(a_volume.min()), float(a_volume.max())
        for z in (0, 4, 10, 3):
            values = low + (high - low) * slices.slice(0, z).astype(np.float64) / 65535
            # Half of one of 65535 steps, and single precision.
            np.testing.assert_allclose(values, a_volume.values[z], atol=0.5 / 65535 + 1e-6)

    @pytest.mark.parametrize("level", [0, 1, 2])
    @pytest.mark.parametrize("kind", ["volume", "series"])
    def test_along_z_they_are_halved(self, a_volume, a_series, kind, level):
        array, axes = (a_volume, (0, 1, 2)) if kind == "volume" else (a_series, (0, 2))
        slices = serving.Slices.of(array, level=level)
        wanted = array.values
        for _ in range(level):
            wanted = halved(wanted, axes=axes)
        low, high = slices.low, slices.high
        for axis in (1, 2):
            for index in (0, array.shape[axis] - 1):
                place = index // 2**level if axis in axes else index
                values = low + (high - low) * slices.slice(axis, index).astype(np.float64) / 65535
                np.testing.assert_allclose(values, np.take(wanted, place, axis=axis), atol=0.5 / 65535 + 1e-6)

    def test_the_copy_does_not_depend_on_slabs(self, a_volume):
        copies = [serving.Slices.of(a_volume.chunk(z=slabs), level=2).copy for slabs in (1, 5, 11)]
        np.testing.assert_array_equal(copies[0], copies[1])
        np.testing.assert_array_equal(copies[0], copies[2])

    def test_the_copy_is_small_enough(self, a_volume):
        assert serving.level_for(a_volume, 2 * 11 * 24 * 24) == 0
        assert serving.level_for(a_volume, 2 * 11 * 24 * 24 - 1) == 1
        assert serving.Slices.of(a_volume, most_bytes=2000).copy.nbytes <= 2000

    def test_one_value_and_none(self):
        flat = serving.Slices.of(nt.volume(np.full((2, 4, 4), 3, np.float32)))
        assert flat.slice(0, 1).max() == 0
        holed = nt.volume(np.where(np.arange(32).reshape(2, 4, 4) == 5, np.nan, 1.0))
        assert serving.Slices.of(holed).slice(0, 0)[1, 1] == 0


class TestViewer:
    @pytest.fixture
    def viewer(self, a_volume):
        viewer = serving.Viewer(serving.Slices.of(a_volume), name="a <volume>.zarr")
        thread = threading.Thread(target=viewer.serve)
        thread.start()
        yield viewer
        viewer.close()
        thread.join()

    def ask(self, viewer, what="", *, method="GET", host=None, path=None):
        where = urlsplit(viewer.address)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
        try:
            headers = {} if host is None else {"Host": host}
            connection.request(method, where.path + what if path is None else path, headers=headers)
            answer = connection.getresponse()
            return SimpleNamespace(status=answer.status, headers=answer.headers, content=answer.read())
        finally:
            connection.close()

    def test_it_gives_slices(self, viewer, a_volume):
        about = json.loads(self.ask(viewer, "about.json").content)
        assert [axis["size"] for axis in about["axes"]] == [11, 24, 24]
        assert about["name"] == "a <volume>.zarr"
        low, high = about["range"]
        for axis, index in ((0, 7), (1, 3), (2, 23)):
            answer = self.ask(viewer, f"slice/{axis}/{index}")
            shape = tuple(int(answer.headers[f"X-{name}"]) for name in ("Rows", "Columns"))
            values = low + (high - low) * np.frombuffer(answer.content, "<u2").reshape(shape) / 65535
            np.testing.assert_allclose(values, np.take(a_volume.values, index, axis=axis), atol=0.5 / 65535 + 1e-6)

    def test_the_page_asks_nobody_else(self, viewer):
        page = self.ask(viewer)
        assert page.headers["Content-Type"].startswith("text/html")
        assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
        assert b"http" not in page.content
        assert b"innerHTML" not in page.content  # names are text

    @pytest.mark.parametrize(
        "what",
        [
            "slice/3/0",
            "slice/0/11",
            "slice/0/-1",
            "slice/0/1/2",
            "slice/0/²",
            "slice/0/99999999999",
            "etc",
            "../",
            "slice",
        ],
    )
    def test_what_is_not_there(self, viewer, what):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(http.client.HTTPConnection, "_encode_request", lambda _, text: text.encode())
            assert self.ask(viewer, what).status == 404

    def test_strangers_are_refused(self, viewer):
        port = urlsplit(viewer.address).port
        assert self.ask(viewer, path="/").status == 403
        assert self.ask(viewer, path=f"/{'x' * 24}/about.json").status == 403
        assert self.ask(viewer, host="evil.example").status == 403
        assert self.ask(viewer, host=f"evil.example:{port}").status == 403
        assert self.ask(viewer, host=f"localhost:{port}").status == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert self.ask(viewer, method=method).status == 501

    def test_it_listens_on_the_loopback_interface_alone(self, viewer):
        assert viewer.server.server_address[0] == "127.0.0.1"

    def test_a_token_is_its_own(self, a_volume):
        slices = serving.Slices.of(a_volume)
        viewers = [serving.Viewer(slices, name="a") for _ in range(2)]
        assert len({viewer.token for viewer in viewers}) == 2
        assert min(len(viewer.token) for viewer in viewers) >= 24
        for viewer in viewers:
            viewer.server.server_close()


class TestShow:
    def test_a_volume(self, run, a_volume, tmp_path):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        assert "v.png" in run("show", "v.zarr").output
        drawn = imread(tmp_path / "v.png")
        assert drawn.shape[0] > 500
        assert len(np.unique(drawn[..., 0])) > 100  # noise has all greys
        run("show", "v.zarr")  # a figure of this command may be replaced
        (tmp_path / "mine.png").write_text("mine")
        assert "exists" in run("show", "v.zarr", "-o", "mine.png", exit_code=2).output
        run("show", "v.zarr", "-o", "a.svg", "--slice", "3,4,5", "--window", "0,1", "--level", "none")
        assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:2000]

    def test_a_series(self, run, a_series):
        nt.save(a_series.chunk(z=10), "s.zarr")
        run("show", "s.zarr", "-o", "s.png", "--slice", 2)
        assert "one number, Z" in run("show", "s.zarr", "-o", "a.png", "--slice", "1,2,3", exit_code=2).output
        assert "--level is for a volume" in run("show", "s.zarr", "-o", "a.png", "--level", 1, exit_code=2).output

    def test_the_slices_are_those_that_are_asked_for(self, a_volume):
        figure = showing.show_volume(a_volume, z=3, y=4, x=5, window=(0, 1), level="none")
        images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
        np.testing.assert_array_equal(images[0], a_volume.values[3])
        np.testing.assert_array_equal(images[1], a_volume.values[:, :, 5].T)
        np.testing.assert_array_equal(images[2], a_volume.values[:, 4])
        assert [axes.get_title() for axes in figure.axes[:3]] == [
            "across the tilt axis, z = 3",
            "across x, x = 5",
            "across the beam at 0°, y = 4",
        ]

    def test_what_is_no_number(self, a_volume, a_series):
        for array, function in ((a_volume, showing.show_volume), (a_series, showing.show_series)):
            holed = array.copy(data=array.values)
            holed.values[5, 4, 4], holed.values[5, 3, 3] = np.nan, np.inf
            figure = function(holed.chunk(z=4), z=5)
            images = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
            assert all(np.isfinite(image).all() for image in images)
            window = figure.axes[0].images[0].get_clim()
            assert 0 <= window[0] < window[1] <= 1

    def test_projections_and_the_sinogram(self, a_series):
        figure = showing.show_series(a_series, z=2)
        images = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
        for angle, place in (("\N{MINUS SIGN}30°", 2), ("0°", 0), ("20°", 1), ("40°", 3), ("61.5°", 4)):
            np.testing.assert_array_equal(images[angle], a_series.values[:, place])
        order = np.argsort(a_series.angle.values)
        np.testing.assert_array_equal(images["sinogram of slice z = 2"], a_series.values[2, order])

    def test_angles_are_shown_to_a_tenth(self, a_series):
        series = a_series.assign_coords(angle=[-0.000488, 20.04, -30, 40, 61.5])
        axes = showing.show_series(series).axes
        assert [one.get_title() for one in axes[:5]] == ["\N{MINUS SIGN}30°", "0°", "20°", "40°", "61.5°"]
        assert [tick.get_text() for tick in axes[5].get_yticklabels()] == [one.get_title() for one in axes[:5]]

    def test_bad_input(self, run, a_volume):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        for words, message in (
            (("--slice", "11"), "needs a slice z from 0 to 10; got 11"),
            (("--slice", "1,2"), "write one number, 40, or three"),
            (("--window", "1,0"), "the lesser first"),
            (("--napari", "0", "--slice", "3"), "--slice is for a figure, not for --napari"),
        ):
            assert message in run("show", "v.zarr", *words, exit_code=2).output

    def test_napari_is_optional(self, run, a_volume, monkeypatch):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        monkeypatch.setitem(sys.modules, "napari", None)
        text = run("show", "v.zarr", "--napari", 0, exit_code=2).output
        assert "needs napari" in text
        assert "pip install 'nntomo_dask[napari]'" in text

    def test_what_napari_is_given(self, run, a_volume, a_series, monkeypatch):
        """Its own window cannot be opened here: what is handed to it is looked at."""
        calls = []
        camera = SimpleNamespace(orientation=("towards", "down", "right"))
        viewer = SimpleNamespace(add_image=lambda data, **keywords: calls.append((data, keywords)), camera=camera)
        fake = SimpleNamespace(Viewer=lambda: viewer, run=lambda: calls.append("run"))
        monkeypatch.setattr(extras, "require", lambda module, who: fake)
        nt.save(a_volume.chunk(z=11), "v.zarr")
        run("show", "v.zarr", "--napari", 1, "--window", "0,1")
        (data, keywords), ended = calls
        assert ended == "run"
        np.testing.assert_array_equal(np.asarray(data), a_volume.values[::2, ::-2, ::2])
        assert keywords["scale"] == [1.0, 1.0, 1.0]
        assert camera.orientation == ("away", "down", "right")
        assert keywords["contrast_limits"] == (0, 1)
        calls.clear()
        nt.save(a_series.chunk(z=10), "s.zarr")
        run("show", "s.zarr", "--napari", 0)
        np.testing.assert_array_equal(np.asarray(calls[0][0]), np.moveaxis(a_series.values[::-1], 0, 1))
        assert (
            "needs a scale at which there is something left" in run("show", "v.zarr", "--napari", 5, exit_code=2).output
        )


class TestView:
    def test_the_command_serves_until_it_is_interrupted(self, run, a_volume, tmp_path):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        command = [sys.executable, "-u", "-m", "nntomo_dask.cli", "view", "v.zarr"]
        environment = measured.environment()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        ) as process:
            address = urlsplit(process.stdout.readline().strip())
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
            connection.request("GET", f"{address.path}slice/0/3")
            assert len(connection.getresponse().read()) == 2 * 24 * 24
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert "the viewer has ended" in process.stderr.read()

    def test_bad_input(self, run, a_volume):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        assert "needs" in run("view", "nothing.zarr", exit_code=2).output
        with socket.create_server(("127.0.0.1", 0)) as taken:
            text = run("view", "v.zarr", "--port", taken.getsockname()[1], exit_code=2).output
        assert "--port" in text
        assert "raise --memory" in run("view", "v.zarr", "--memory", "100MiB", exit_code=2).output


def test_the_png_is_compressed():
    """A slice of one value takes next to nothing."""
    assert len(png.encoded(np.zeros((512, 512), np.uint8))) < 1000
    assert zlib.crc32(b"IEND") in [int.from_bytes(png.encoded(np.zeros((1, 1), np.uint8))[-4:])]
