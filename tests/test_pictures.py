"""Pictures and single DICOM slices of many kinds: right, or refused with a word on the kind."""

import struct
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sequence import Sequence
from test_folders import dicom

from covid_utils.io.images import read_file, read_slice

ACROSS, DOWN = np.meshgrid(np.linspace(-0.2, 1.2, 50), np.linspace(0, 6, 50))
# dark at the left, light at the right, black and white in each row, and not the same upside down
RAMP = (np.clip(ACROSS + 0.15 * np.sin(DOWN), 0, 1) * 255).round().astype(np.uint8)
WIDE = 257 * RAMP.astype(np.uint16)
STORED = (RAMP.astype(np.float32) / 255 * 1500).round().astype(np.uint16)  # -1350 to 150 Hounsfield units
PIXELS = {"Rows": 50, "Columns": 50, "PixelData": STORED.tobytes()}
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}
EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": RAMP.tobytes()}


def near(picture, wanted=RAMP):
    return np.abs(picture.astype(int) - wanted.astype(int)).max() <= 3


def saved(values, mode=None, **options):
    """What writes values as a picture."""
    image = Image.fromarray(values)
    image = image if mode is None else image.convert(mode)
    return lambda path: image.save(path, **options)


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return {"exif": exif}


def white_is_zero(path, values):
    """Pillow writes values of 16 bits as they are: only the tag changes."""
    Image.fromarray(values).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x06\x01\x03\x00") + 8] = 0
    path.write_bytes(content)


def scan(change=None, **tags):
    """What writes a DICOM slice with other tags, and perhaps changed by a function of its data set."""

    def write(path):
        dicom(path, len(path.name), "p", **tags)
        if change:
            data = pydicom.dcmread(path)
            change(data)
            data.save_as(path)

    return write


# -------------------------------------------------------------------------------------------------- pictures


def ramp(low, high, dtype):
    return saved((low + RAMP / 255 * (high - low)).astype(dtype))


def colours(*more):
    """12 of 16 bits a colour, as scanners write."""
    values = np.stack([RAMP.astype(np.uint16) * 16] * 3 + [np.full((50, 50), each, np.uint16) for each in more], -1)
    return lambda path: cv2.imwrite(str(path), values)


COLOURS = {"rgb.png": colours(), "rgba.png": colours(65535), "rgb.tif": colours()}
PREVIEW = {"format": "MPO", "save_all": True, "append_images": [Image.fromarray(RAMP[:10, :10]).convert("RGB")]}
PICTURES = COLOURS | {
    **{f"8 bits.{suffix}": saved(RAMP) for suffix in ("tiff", "bmp", "PNG")},
    **{f"{mode}.png": saved(RAMP, mode) for mode in ("LA", "P", "RGB", "RGBA")},
    "CMYK.tif": saved(RAMP, "CMYK"),
    **{f"12 bits.{suffix}": ramp(0, 4095, np.uint16) for suffix in ("png", "tif")},
    **{f"16 bits.{suffix}": ramp(1000, 65535, np.uint16) for suffix in ("png", "tif")},
    "float.tif": ramp(-100, 900, np.float32),
    **{f"Hounsfield units of {kind}.tif": saved(STORED.astype(kind) - 1350) for kind in ("int32", "float32")},
    "white is zero.tif": saved(RAMP, tiffinfo={262: 0}),
    "white is zero of 16 bits.tif": lambda path: white_is_zero(path, 65535 - WIDE),
    "preview of a camera.jpg": saved(RAMP, "RGB", quality=100, **PREVIEW),
    "big-endian.tif": lambda path: Image.frombytes("I;16B", (50, 50), WIDE.astype(">u2").tobytes()).save(path),
}
UNDONE = [None, 0, 3, 1, 5, 2, 6, 4]  # by which of Pillow's turns each orientation is undone
for number, turn in enumerate(UNDONE, start=1):  # field case: exif_orientation
    stored = RAMP if turn is None else np.array(Image.fromarray(RAMP).transpose(turn))
    for suffix in ("jpg", "png", "tif", "webp"):
        lossy = {"quality": 100} if suffix in ("jpg", "webp") else {}
        PICTURES[f"turned {number}.{suffix}"] = saved(stored, **turned(number), **lossy)


@pytest.mark.parametrize("name", PICTURES)
def test_a_ramp_is_the_same_ramp_in_every_format(tmp_path, name):
    PICTURES[name](tmp_path / name)
    image = read_slice(tmp_path / name, 50)
    assert image.shape == (50, 50) and image.dtype == np.uint8 and near(image)


@pytest.mark.parametrize("name", COLOURS)
def test_a_window_of_16_bits_a_colour(tmp_path, name):  # field case: rgb16_png
    COLOURS[name](tmp_path / name)
    assert read_slice(tmp_path / name, 50, window=(0, 65535)).max() == 16  # 4080 of 65535


# ----------------------------------------------------------------------------------------------------- DICOM


def rescaled_in(place):
    """A slice whose offset stands in functional groups."""
    value, group = pydicom.Dataset(), pydicom.Dataset()
    value.RescaleSlope, value.RescaleIntercept = 1, -1350
    group.PixelValueTransformationSequence = Sequence([value])
    return scan(NumberOfFrames=1, **PIXELS, **NO_RESCALE, **{place: Sequence([group])})


def ramp_scan(change=None, **tags):
    return scan(change, **(PIXELS | tags))


def unscaled(**tags):
    return ramp_scan(**(NO_RESCALE | tags))


SCANS = {
    "Hounsfield units": ramp_scan(),
    "RLE": ramp_scan(lambda data: data.compress(pydicom.uid.RLELossless)),  # needs nothing else
    "shared groups": rescaled_in("SharedFunctionalGroupsSequence"),
    "groups of a frame": rescaled_in("PerFrameFunctionalGroupsSequence"),
    "raw": unscaled(Modality="CT"),
    "MR": unscaled(Modality="MR", RescaleSlope=1, RescaleIntercept=0),
    "own window": unscaled(Modality="DX", WindowCenter=750, WindowWidth=1500),
    "two windows": unscaled(Modality="DX", WindowCenter=[750, 20], WindowWidth=[1500, 10]),
    "inverted": unscaled(Modality="DX", PhotometricInterpretation="MONOCHROME1", PixelData=(1500 - STORED).tobytes()),
    # converters from NIfTI: https://github.com/Project-MONAI/monai-deploy-app-sdk/pull/236
    "no slope": ramp_scan(RescaleSlope=None),
    "no slope but a window": ramp_scan(RescaleSlope=None, WindowCenter=-600, WindowWidth=1500),
    "signed": unscaled(PixelRepresentation=1, PixelData=(STORED.astype(np.int16) - 1350).tobytes()),
    "eight bits": unscaled(**EIGHT),
    # eight bits that were windowed before, https://github.com/pydicom/pydicom/issues/2073
    "eight bits with an offset": ramp_scan(**EIGHT, RescaleIntercept=-1024),
    "no orientation": ramp_scan(ImageOrientationPatient=[0] * 6),  # https://github.com/CBICA/CaPTk/issues/445
    "half an orientation": ramp_scan(ImageOrientationPatient=[1, 0, 0]),
}


@pytest.mark.parametrize("write", SCANS.values(), ids=SCANS)
def test_a_ramp_is_the_same_ramp_whatever_a_header_lacks(tmp_path, write):  # field case: dicom_kinds
    write(tmp_path / "x.dcm")
    assert near(read_slice(tmp_path / "x.dcm", 50))


def test_without_a_preamble_with_a_given_window_and_of_a_kind_left_out_of_folders(tmp_path):
    ramp_scan(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(tmp_path / "x.dcm")
    assert read_slice(tmp_path / "x.dcm", 50, window=(-1350, 1650)).max() == pytest.approx(255 / 2, abs=1)
    assert read_file(tmp_path / "x.dcm", 50).note == "of a kind that is left out of folders: scouts"
    (tmp_path / "no preamble.ima").write_bytes((tmp_path / "x.dcm").read_bytes()[132:])
    assert near(read_slice(tmp_path / "no preamble.ima", 50))


@pytest.mark.parametrize("limit", [{}, {"PixelPaddingRangeLimit": -1990}])
def test_padding_does_not_stretch_the_grey_levels(tmp_path, limit):
    """As in https://github.com/dgobbi/vtk-dicom/issues/173, here where the file gives no window."""
    padded = STORED.astype(np.int16)
    padded[:5] = -1995 if limit else -2000
    tags = {"PixelRepresentation": 1, "PixelPaddingValue": -2000, "PixelData": padded.tobytes(), "Modality": "MR"}
    unscaled(**tags, **limit)(tmp_path / "x.dcm")
    found = read_slice(tmp_path / "x.dcm", 50)
    assert near(found[5:], RAMP[5:]) and found[:5].max() == 0


# --------------------------------------------------------------------------------------------------- refused


def bomb(side, dtype):
    """A small file whose header says that it is large."""
    small = cv2.imencode(".png", np.ones((2, 2, 3), dtype))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    content = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    return lambda path: path.write_bytes(content)


def packed(data):
    """As lossless JPEG, which needs another package; the file is not at fault."""
    data.PixelData = pydicom.encaps.encapsulate([STORED.tobytes()[:1000]])
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1


def huge(data):
    data.compress(pydicom.uid.RLELossless)
    data.Rows = data.Columns = 50_000


COLOUR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
BLANK = r"\(it is blank, one grey level throughout\)"
PAGES = {"save_all": True, "append_images": [Image.fromarray(RAMP)] * 2}
REFUSED = {
    "inverted.dcm": (ramp_scan(PhotometricInterpretation="MONOCHROME1"), "a CT slice with inverted greys"),
    "frames.dcm": (ramp_scan(NumberOfFrames=3, PixelData=STORED.tobytes() * 3), "3 slices, convert it to NIfTI"),
    "colour.dcm": (ramp_scan(**COLOUR), "a colour picture"),
    "palette.dcm": (ramp_scan(PhotometricInterpretation="PALETTE COLOR"), "a colour picture"),
    "none.dcm": (ramp_scan(lambda data: data.pop("PixelData")), "it holds no picture"),
    "jpeg.dcm": (ramp_scan(packed), "packed as JPEG Lossless.*: run 'python -m pip install pydicom \"pylibjpeg"),
    "huge.dcm": (ramp_scan(huge), "50000 × 50000 pixels"),
    "transparent.png": (saved(np.full((40, 40, 4), (255, 255, 255, 0), np.uint8)), BLANK),
    "blank.png": (saved(np.full((40, 40), 700, np.uint16)), BLANK),
    "pages.tif": (saved(RAMP, **PAGES), "it holds 3 pictures"),
    **{
        f"{side}{dtype.__name__}.png": (bomb(side, dtype), r"pixels.*: replace or delete")
        for side in (9_000, 50_000)
        for dtype in (np.uint8, np.uint16)
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ImportError if name == "jpeg.dcm" else ValueError, match=f"{name} .*{message}"):
        read_slice(tmp_path / name, 50)
