"""Pictures and scans of many kinds: right, or refused with a word on the kind."""

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

RAMP = np.tile(np.linspace(0, 255, 50).round().astype(np.uint8), (50, 1))  # dark at the left, light at the right
STORED = (RAMP.astype(np.float32) / 255 * 1500).round().astype(np.uint16)  # -1350 to 150 Hounsfield units
PIXELS = {"Rows": 50, "Columns": 50, "PixelData": STORED.tobytes()}
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def near(picture, wanted=RAMP, most=2):
    return np.abs(picture.astype(int) - wanted.astype(int)).max() <= most


def read(tmp_path, change=None, **tags):
    """The slice of a DICOM file with other tags, and perhaps changed by a function of its data set."""
    dicom(tmp_path / "x.dcm", 0, "p", **(PIXELS | tags))
    if change:
        data = pydicom.dcmread(tmp_path / "x.dcm")
        change(data)
        data.save_as(tmp_path / "x.dcm")
    return read_slice(tmp_path / "x.dcm", 50)


# -------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_photo_is_turned_as_its_camera_says(tmp_path, suffix):
    undone = [None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE"]
    for orientation, turn in enumerate([*undone, "ROTATE_270"], start=1):
        image = Image.fromarray(RAMP)
        exif = image.getexif()
        exif[274] = orientation
        turned = image.transpose(Image.Transpose[turn]) if turn else image
        turned.save(tmp_path / f"photo.{suffix}", exif=exif, **({"quality": 100} if suffix in ("jpg", "webp") else {}))
        assert near(read_slice(tmp_path / f"photo.{suffix}", 50), most=6), orientation


def white_is_zero(path, values):
    """Pillow writes values of 16 bits as they are: only the tag changes."""
    Image.fromarray(values).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x06\x01\x03\x00") + 8] = 0
    path.write_bytes(content)


def test_white_is_zero(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert near(read_slice(tmp_path / "x.tif", 50))
    white_is_zero(tmp_path / "x.tif", 65535 - 257 * RAMP.astype(np.uint16))
    assert near(read_slice(tmp_path / "x.tif", 50))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_hounsfield_units_in_a_tiff_get_the_lung_window(tmp_path, kind):
    Image.fromarray(STORED.astype(kind) - kind(1350)).save(tmp_path / "x.tif")
    bone = STORED.astype(kind) - kind(1350)
    bone[:2] = 2000
    Image.fromarray(bone).save(tmp_path / "bone.tif")
    found = read_file(tmp_path / "bone.tif", 50)
    assert near(read_slice(tmp_path / "x.tif", 50)) and near(found.image[8:], RAMP[8:]) and not found.note


@pytest.mark.parametrize("kind", ["rgb.png", "rgba.png", "rgb.tif"])
def test_16_bits_a_colour(tmp_path, kind):
    low = (RAMP.astype(np.uint16) * 16)[..., None].repeat(3, axis=2)  # 12 of 16 bits, as scanners write
    if kind.startswith("rgba"):
        low = np.dstack([low, np.full((50, 50), 65535, np.uint16)])
    cv2.imwrite(str(tmp_path / kind), low)
    assert near(read_slice(tmp_path / kind, 50))
    assert read_slice(tmp_path / kind, 50, window=(0, 65535)).max() == 16  # 4080 of 65535


def test_transparent_places_of_16_bit_pictures_are_black(tmp_path):
    image = np.full((50, 50, 4), 65535, np.uint16)
    image[:25, :, 3], image[:, :2, :3] = 0, 20000
    cv2.imwrite(str(tmp_path / "x.png"), image)
    found = read_slice(tmp_path / "x.png", 50)
    assert found[:20].max() == 0 and found[30:, 10:].min() == 255


def test_a_cameras_jpeg_with_a_preview_and_a_big_endian_tiff(tmp_path):
    image = Image.fromarray(RAMP).convert("RGB")
    image.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[image.resize((10, 10))], quality=100)
    Image.frombytes("I;16B", (50, 50), (257 * RAMP.astype(">u2")).tobytes()).save(tmp_path / "x.tif")
    assert near(read_slice(tmp_path / "x.jpg", 50), most=4) and near(read_slice(tmp_path / "x.tif", 50))


@pytest.mark.parametrize("side", [9_000, 50_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_too_many_pixels(tmp_path, side, dtype):
    """Refused by the header; a small file may say that it is large."""
    small = cv2.imencode(".png", np.ones((2, 2, 3), dtype))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    (tmp_path / "bomb.png").write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read .*pixels.*: replace or delete"):
        read_slice(tmp_path / "bomb.png", 50)


# ----------------------------------------------------------------------------------------------------- DICOM


def test_hounsfield_units_get_the_lung_window(tmp_path):
    assert near(read(tmp_path))
    assert read_slice(tmp_path / "x.dcm", 50, window=(-1350, 1650)).max() == pytest.approx(255 / 2, abs=1)
    (tmp_path / "no preamble.ima").write_bytes((tmp_path / "x.dcm").read_bytes()[132:])
    assert near(read_slice(tmp_path / "no preamble.ima", 50))
    assert near(read(tmp_path, lambda data: data.compress(pydicom.uid.RLELossless)))  # needs nothing else


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_rescale_in_functional_groups(tmp_path, place):
    value, group = pydicom.Dataset(), pydicom.Dataset()
    value.RescaleSlope, value.RescaleIntercept = 1, -1350
    group.PixelValueTransformationSequence = Sequence([value])
    assert near(read(tmp_path, NumberOfFrames=1, **NO_RESCALE, **{place: Sequence([group])}))


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "CT"},
        {"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0},
        {"Modality": "DX", "WindowCenter": 750, "WindowWidth": 1500},
        {"Modality": "DX", "WindowCenter": [750, 20], "WindowWidth": [1500, 10]},
        {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", "PixelData": (1500 - STORED).tobytes()},
    ],
)
def test_what_is_no_ct_slice_in_hounsfield_units_gets_its_own_window(tmp_path, tags):
    assert near(read(tmp_path, **(NO_RESCALE | tags)))


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": None},  # converters from NIfTI: https://github.com/Project-MONAI/monai-deploy-app-sdk/pull/236
        {"RescaleSlope": None, "WindowCenter": -600, "WindowWidth": 1500},
        NO_RESCALE | {"PixelRepresentation": 1, "PixelData": (STORED.astype(np.int16) - 1350).tobytes()},
        NO_RESCALE | {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": RAMP.tobytes()},
        # eight bits that were windowed before, https://github.com/pydicom/pydicom/issues/2073
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": RAMP.tobytes(), "RescaleIntercept": -1024},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},  # https://github.com/CBICA/CaPTk/issues/445
        {"ImageOrientationPatient": [1, 0, 0]},
    ],
)
def test_headers_that_lack_a_part_or_have_one_too_many(tmp_path, tags):
    assert near(read(tmp_path, **tags))


def test_a_file_that_folders_leave_out_is_named_where_it_is_given_alone(tmp_path):
    dicom(tmp_path / "scout.dcm", 0, "p", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert read_file(tmp_path / "scout.dcm", 50).note == "of a kind that is left out of folders: scouts"


def packed(data):
    """As lossless JPEG, which needs another package; the file is not at fault."""
    data.PixelData = pydicom.encaps.encapsulate([STORED.tobytes()[:1000]])
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1


@pytest.mark.parametrize(
    ("tags", "change", "error", "message"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, None, ValueError, "a CT slice with inverted greys"),
        ({"NumberOfFrames": 3, "PixelData": STORED.tobytes() * 3}, None, ValueError, "3 slices, convert it to NIfTI"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
            None, ValueError, "a colour picture",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, None, ValueError, "a colour picture"),
        ({}, lambda data: data.pop("PixelData"), ValueError, "it holds no picture"),
        ({}, packed, ImportError, "packed as JPEG Lossless.*: run 'python -m pip install pydicom \"pylibjpeg"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, tags, change, error, message):
    with pytest.raises(error, match=f"x.dcm .*{message}"):
        read(tmp_path, change, **tags)


@pytest.mark.parametrize("limits", [{"PixelPaddingValue": -2000}, {"PixelPaddingRangeLimit": -1990}])
def test_padding_does_not_stretch_the_grey_levels(tmp_path, limits):
    """As in https://github.com/dgobbi/vtk-dicom/issues/173, here where the file gives no window."""
    padded = STORED.astype(np.int16)
    padded[:5] = -2000 if "PixelPaddingValue" in limits else -1995
    tags = {"PixelRepresentation": 1, "PixelPaddingValue": -2000, "PixelData": padded.tobytes(), "Modality": "MR"}
    tags |= limits
    found = read(tmp_path, **(NO_RESCALE | tags))
    assert near(found[5:], RAMP[5:]) and found[:5].max() == 0
