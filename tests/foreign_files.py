"""Small files of microscopes and of other programs, made here, of images that are known."""

import json
import struct
import zlib
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import tifffile

TIMES = (1_700_000_060, 1_700_000_000, 1_700_000_120)  # of three images, the second of which was taken first


def images(dtype="<u2", shape=(3, 5, 7)):
    return np.random.default_rng(5).integers(0, 100, shape).astype(dtype)


# DigitalMicrograph

DM_TYPES = {"i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7, "u1": 8, "i8": 11, "u8": 12}


class DmWriter:
    """Writes a tree of tags, in version 3 or 4 and either order of bytes."""

    def __init__(self, version=3, order="<"):
        self.version, self.order = version, order
        self.word = ">q" if version == 4 else ">i"

    def file(self, tree):
        root = self.group(tree)
        head = struct.pack(">i", self.version) + struct.pack(self.word, len(root))
        return head + struct.pack(">i", self.order == "<") + root + bytes(8)

    def number(self, value):
        return struct.pack(self.word, value)

    def group(self, tree):
        tags = b"".join(self.tag(name, value) for name, value in tree.items())
        return b"\1\0" + self.number(len(tree)) + tags

    def tag(self, name, value):
        text = b"" if name.startswith("#") else name.encode("latin-1")
        body = self.group(value) if isinstance(value, dict) else self.leaf(value)
        size = self.number(len(body)) if self.version == 4 else b""
        return bytes([20 if isinstance(value, dict) else 21]) + struct.pack(">H", len(text)) + text + size + body

    def leaf(self, value):
        if isinstance(value, str):
            value = np.array([ord(one) for one in value], "u2")
        if isinstance(value, tuple):  # a structure
            info = [15, 0, len(value)] + [item for _ in value for item in (0, 7)]
            content = np.array(value, self.order + "f8").tobytes()
        elif isinstance(value, np.ndarray):
            kind = value.dtype.str[1:]
            info, content = [20, DM_TYPES[kind], value.size], value.astype(self.order + kind).tobytes()
        else:
            kind = "f8" if isinstance(value, float) else "i4"
            info, content = [DM_TYPES[kind]], np.array(value, self.order + kind).tobytes()
        return b"%%%%" + self.number(len(info)) + b"".join(map(self.number, info)) + content


def dm_image(data, *, name="HAADF", units="nm", scale=2.5, third=None, tags=None, kind=None):
    """The tags of an image; `third` is origin, scale and units of the third dim."""
    codes = {"i2": 1, "f4": 2, "u1": 6, "i4": 7, "u2": 10, "u4": 11, "f8": 12}
    dims = [{"Origin": 0.0, "Scale": scale, "Units": units}] * 2
    if data.ndim == 3:
        origin, step, unit = third or (0.0, 1.0, "")
        dims = [*dims, {"Origin": origin, "Scale": step, "Units": unit}]
    return {
        "ImageData": {
            "Calibrations": {"Dimension": {f"#{index}": dim for index, dim in enumerate(dims)}},
            "Data": data.reshape(-1),
            "DataType": kind or codes[data.dtype.str[1:]],
            "Dimensions": {f"#{index}": size for index, size in enumerate(data.shape[::-1])},
        },
        "ImageTags": tags or {},
        "Name": name,
    }


def dm_tags(*, alpha=None, time=None):
    stage = {} if alpha is None else {"Stage Position": {"Stage Alpha": float(alpha)}}
    bar = {"Device Name": "DigiScan", "Exposure Time (s)": 0.5} | (
        {} if time is None else {"Acquisition Time (OS)": time * 1e7}
    )
    return {"Microscope Info": {"Voltage": 200000.0, "Indicated Magnification": 40000.0} | stage, "DataBar": bar}


def dm_file(path, *found, version=3, order="<"):
    """A file of some images behind a thumbnail, which is a coloured image."""
    small = dm_image(np.zeros((4, 4), "u4"), name="thumbnail", kind=23)
    tree = {
        "ApplicationBounds": (0.0, 0.0, 1.0, 1.0),
        "ImageList": {f"#{index}": image for index, image in enumerate([small, *found])},
        "Thumbnails": {"#0": {"ImageIndex": 0}},
    }
    path.write_bytes(DmWriter(version, order).file(tree))
    return path


def dm_stack(folder, data=None, *, version=3, order="<"):
    """Three images at -10, 0 and 10 degrees."""
    data = images() if data is None else data
    found = dm_image(data, third=(1.0, 10.0, "deg"), tags=dm_tags())
    return dm_file(folder / f"a.dm{version}", found, version=version, order=order)


def dm_folder(folder, data=None):
    """The same as a file an image; names in which 10 comes after 9."""
    data = images() if data is None else data
    place = folder / "singles"
    place.mkdir()
    for number, image in enumerate(data):
        tags = dm_tags(alpha=10 * number - 10, time=TIMES[number])
        dm_file(place / f"a_{number + 9}.dm3", dm_image(image, tags=tags))
    return place


# TIA

SER_TYPES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8}
EMI = """binary<ObjectInfo><Uuid>x</Uuid><ExperimentalDescription><Root>
<Data><Label>High tension</Label><Value>300</Value><Unit>kV</Unit></Data>
<Data><Label>Magnification</Label><Value>28500</Value><Unit>x</Unit></Data>
<Data><Label>Stage A</Label><Value>-12.5</Value><Unit>deg</Unit></Data>
<Data><Label>Mode</Label><Value>STEM nP SA Zoom Image</Value><Unit></Unit></Data>
</Root></ExperimentalDescription></ObjectInfo>binary"""


def ser_file(path, data, *, times=TIMES, wide=True, recorded=None):
    """A file of images, of which only some may have been recorded."""
    count = len(data)
    place = "<Q" if wide else "<I"
    version = 0x220 if wide else 0x210
    dim = struct.pack("<IddIII", count, 0.0, 1.0, 0, 0, 0)
    table = 22 + struct.calcsize(place) + 4 + len(dim)
    begin = table + 2 * count * struct.calcsize(place)
    body, offsets, tags = b"", [], []
    for image in data:
        offsets.append(begin + len(body))
        height, width = image.shape
        code = SER_TYPES[image.dtype.str[1:]]
        body += struct.pack("<ddiddiHII", 0.0, 2.5e-9, 0, 0.0, 2.5e-9, 0, code, width, height)
        body += image.astype(image.dtype.newbyteorder("<")).tobytes()
    for time in times[:count]:
        tags.append(begin + len(body))
        body += struct.pack("<HHI", 0x4152, 0, time)
    head = struct.pack("<HHHIIII", 0x4949, 0x0197, version, 0x4122, 0x4152, count, recorded or count)
    entries = b"".join(struct.pack(place, one) for one in offsets + tags)
    path.write_bytes(head + struct.pack(place, table) + struct.pack("<I", 1) + dim + entries + body)
    return path


def ser_stack(folder, data=None, **settings):
    data = images() if data is None else data
    (folder / "a.emi").write_bytes(EMI.encode())
    return ser_file(folder / "a_1.ser", data, **settings)


# EMD


def velox_record(alpha_deg, time):
    return {
        "BinaryResult": {
            "Detector": "HAADF", "DetectorIndex": "0", "PixelUnitX": "m", "PixelUnitY": "m",
            "PixelSize": {"width": "2.5e-09", "height": "2.5e-09"},
        },
        "Stage": {"AlphaTilt": str(np.deg2rad(alpha_deg))},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": str(time)}},
        "Optics": {"AccelerationVoltage": "200000"},
        "CustomProperties": {"StemMagnification": {"type": "double", "value": "40000"}},
        "Scan": {"FrameTime": "0.5"},
        "Detectors": {"Detector-0": {"DetectorName": "HAADF"}},
    }  # fmt: skip


def velox_image(file, key, data, records):
    group = file.require_group(f"Data/Image/{key}")
    group.create_dataset("Data", data=np.moveaxis(data, 0, 2), chunks=(*data.shape[1:], 1), compression="gzip")
    metadata = np.zeros((5000, len(records)), np.uint8)
    for index, record in enumerate(records):
        text = json.dumps(record).encode()
        metadata[: len(text), index] = np.frombuffer(text, np.uint8)
    group.create_dataset("Metadata", data=metadata, chunks=(5000, 1), compression="gzip")


def velox_stack(folder, data=None):
    data = images() if data is None else data
    with h5py.File(folder / "a.emd", "w") as file:
        file["Version"] = np.array([b'{"format": "Velox", "version": "11"}'])
        records = [velox_record(10 * index - 10, TIMES[index]) for index in range(len(data))]
        velox_image(file, "0123456789abcdef0123456789abcdef", data, records)
    return folder / "a.emd"


def ncem_stack(folder, data=None):
    """In the order of the description, images first."""
    data = images() if data is None else data
    with h5py.File(folder / "n.emd", "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/stack")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        vectors = [
            (10.0 * np.arange(len(data)) - 10, "[deg]"),
            *((2.5 * np.arange(size), "[n_m]") for size in data.shape[1:]),
        ]
        for index, (values, units) in enumerate(vectors):
            group[f"dim{index + 1}"] = values
            group[f"dim{index + 1}"].attrs["units"] = units
    return folder / "n.emd"


def ncem_by_hyperspy(folder, data=None, **settings):
    """In HyperSpy's order, images last."""
    from rsciio.emd import file_writer

    data = images() if data is None else data
    file_writer(str(folder / "h.emd"), signal(data, **settings))
    return folder / "h.emd"


# HyperSpy


def signal(data, *, title="a series", units="degrees", step=10.0, tilts=None, kind="", tiltaxis=None):
    """A signal as RosettaSciIO's writers take it."""
    axes = [{"name": "tilt", "units": units, "navigate": True, "scale": step, "offset": -step}]
    axes += [{"name": name, "units": "nm", "navigate": False, "scale": 2.5, "offset": 0.0} for name in "yx"]
    kept = axes[-data.ndim :]
    for index, (axis, size) in enumerate(zip(kept, data.shape, strict=True)):
        axis |= {"_type": "UniformDataAxis", "size": size, "index_in_array": index, "is_binned": False}
        kept[index] = axis
    tem = {"beam_energy": 200.0, "magnification": 40000.0, "Stage": {"tilt_alpha": 3.5}}
    metadata = {"General": {"title": title}, "Signal": {"signal_type": kind}, "Acquisition_instrument": {"TEM": tem}}
    if tilts is not None:
        metadata["Tomography"] = {"tilts": np.asarray(tilts, float), "tiltaxis": tiltaxis or 0}
    return {
        "data": data, "axes": kept, "metadata": metadata, "original_metadata": {}, "learning_results": {},
        "package_info": {"package": "hyperspy", "package_version": "2.5.0"}, "models": {}, "tmp_parameters": {},
        "attributes": {"_lazy": False, "ragged": False},
    }  # fmt: skip


def hspy_stack(folder, data=None, **settings):
    from rsciio.hspy import file_writer

    data = images() if data is None else data
    file_writer(str(folder / "a.hspy"), signal(data, **settings))
    return folder / "a.hspy"


def zspy_stack(folder, data=None, *, tilts=(-10.0, 0.0, 10.0)):
    """The same as a folder of Zarr's format 2, laid out by hand."""
    data = images() if data is None else data
    root = folder / "a.zspy"
    base = root / "Experiments" / "a series"
    tem = {"beam_energy": 200.0, "magnification": 40000.0}
    groups = {
        root: {"file_format": "ZSpy", "file_format_version": "3.3"},
        root / "Experiments": {},
        base: {"package": "hyperspy"},
        base / "metadata": {},
        base / "metadata/Signal": {"signal_type": ""},
        base / "metadata/Acquisition_instrument": {},
        base / "metadata/Acquisition_instrument/TEM": tem,
        base / "metadata/Tomography": {},
        base / "axis-0": {"units": "", "navigate": True, "scale": 1.0, "offset": 0.0},
        base / "axis-1": {"units": "nm", "navigate": False, "scale": 2.5, "offset": 0.0},
        base / "axis-2": {"units": "nm", "navigate": False, "scale": 2.5, "offset": 0.0},
    }
    for place, attributes in groups.items():
        place.mkdir(parents=True)
        (place / ".zgroup").write_text('{"zarr_format": 2}')
        (place / ".zattrs").write_text(json.dumps(attributes))
    chunks = (1, -(-data.shape[1] // 2), data.shape[2])
    zarr_2(base / "data", data, chunks=chunks, compressor=numcodecs.Blosc(cname="zstd", clevel=1))
    zarr_2(base / "metadata/Tomography/_sig_tilts/data", np.array(tilts)[:, None], chunks=(len(tilts), 1))
    return root


def zarr_2(place, data, *, chunks, compressor=None, separator="/"):
    """An array in Zarr's format 2."""
    place.mkdir(parents=True)
    metadata = {
        "zarr_format": 2, "shape": data.shape, "chunks": chunks, "dtype": data.dtype.str, "fill_value": 0, "order": "C",
        "filters": None, "compressor": compressor.get_config() if compressor else None,
        "dimension_separator": separator,
    }  # fmt: skip
    (place / ".zarray").write_text(json.dumps(metadata))
    for grid in np.ndindex(*(-(-size // chunk) for size, chunk in zip(data.shape, chunks, strict=True))):
        part = data[tuple(slice(index * chunk, (index + 1) * chunk) for index, chunk in zip(grid, chunks, strict=True))]
        whole = np.zeros(chunks, data.dtype)
        whole[tuple(map(slice, part.shape))] = part
        path = place / separator.join(map(str, grid))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(compressor.encode(whole) if compressor else whole.tobytes())


# TIFF, NumPy, OME-Zarr


def tiff_stack(folder, data=None):
    data = images() if data is None else data
    tifffile.imwrite(folder / "a.tif", data, imagej=True, resolution=(0.4, 0.4), metadata={"unit": "nm", "axes": "TYX"})
    return folder / "a.tif"


def tiff_pages(folder, data=None, **settings):
    """Compressed pages, each with tags of its own, without a description."""
    data = images() if data is None else data
    settings = {"compression": "zlib", "metadata": None, "photometric": "minisblack"} | settings
    tifffile.imwrite(folder / "pages.tif", data, **settings)
    return folder / "pages.tif"


def ome_tiff(folder, data=None):
    data = images() if data is None else data
    keys = {"axes": "TYX", "PhysicalSizeX": 0.0025, "PhysicalSizeY": 0.0025}
    tifffile.imwrite(folder / "a.ome.tif", data, metadata=keys, ome=True)
    return folder / "a.ome.tif"


def tiff_folder(folder, data=None):
    data = images() if data is None else data
    place = folder / "tiffs"
    place.mkdir()
    for number, image in enumerate(data):
        tifffile.imwrite(place / f"t_{number + 9}.tif", image, photometric="minisblack")
    return place


def npy_file(folder, data=None):
    np.save(folder / "a.npy", images() if data is None else data)
    return folder / "a.npy"


def ome_axes(units="nanometer", depth="z"):
    kinds = {"z": "space", "angle": "angle", "t": "time"}
    return [{"name": depth, "type": kinds[depth]}, *({"name": name, "type": "space", "unit": units} for name in "yx")]


def ome_zarr_04(folder, data=None, *, depth="z", scale=(2.5, 2.5, 2.5), units="nanometer"):
    data = images() if data is None else data
    root = folder / "a.ome.zarr"
    root.mkdir()
    transformations = [{"type": "scale", "scale": list(scale)}]
    image = {
        "version": "0.4", "axes": ome_axes(units, depth),
        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
    }  # fmt: skip
    if depth == "z":
        image["axes"][0]["unit"] = units
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    (root / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    chunks = (2, data.shape[1], -(-data.shape[2] // 2))
    zarr_2(root / "0", data, chunks=chunks, compressor=numcodecs.Blosc(cname="lz4"))
    return root


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}


def ome_zarr_05(folder, data=None, *, depth="angle", codecs=(BYTES, GZIP), encode=None, **keys):
    """Zarr's format 3, laid out by hand."""
    data = images() if data is None else data
    root = folder / "b.ome.zarr"
    (root / "0").mkdir(parents=True)
    transformations = [{"type": "scale", "scale": [1.0, 2.5, 2.5]}]
    image = {"axes": ome_axes(depth=depth), "datasets": [{"path": "0", "coordinateTransformations": transformations}]}
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (root / "zarr.json").write_text(json.dumps(group))
    chunks = (1, *data.shape[1:])
    array = {
        "zarr_format": 3, "node_type": "array", "shape": data.shape, "data_type": data.dtype.name, "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": codecs,
        "attributes": {}, "dimension_names": [depth, "y", "x"],
    }  # fmt: skip
    (root / "0/zarr.json").write_text(json.dumps(array | keys))
    for number, part in enumerate(data):
        path = root / f"0/c/{number}/0/0"
        path.parent.mkdir(parents=True)
        path.write_bytes((encode or _gzip)(part.tobytes()))
    return root


def _gzip(content):
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    return packer.compress(content) + packer.flush()


MAKERS = {
    "DM3": dm_stack,
    "DM4": lambda folder, data=None: dm_stack(folder, data, version=4),
    "DM3, big-endian": lambda folder, data=None: dm_stack(folder, data, order=">"),
    "DM3 folder": dm_folder,
    "SER": ser_stack,
    "SER, narrow": lambda folder, data=None: ser_stack(folder, data, wide=False),
    "EMD of Velox": velox_stack,
    "EMD of NCEM": ncem_stack,
    "EMD of HyperSpy": ncem_by_hyperspy,
    "hspy": hspy_stack,
    "zspy": zspy_stack,
    "TIFF of ImageJ": tiff_stack,
    "TIFF of pages": tiff_pages,
    "OME-TIFF": ome_tiff,
    "TIFF folder": tiff_folder,
    "NPY": npy_file,
    "OME-Zarr 0.4": ome_zarr_04,
    "OME-Zarr 0.5": ome_zarr_05,
}


def opened(path: Path, **options):
    """Open a file by the format that recognises it."""
    from nntomo_dask.formats.format import format_of

    kind = format_of(path)
    assert kind is not None, path
    assert kind.recognises(path), path
    return kind.open_images(path, **options)


def values(found):
    """All pixels."""
    return np.stack([found.read(index, slice(None), slice(None)) for index in range(found.shape[0])])
