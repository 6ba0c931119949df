"""Pictures and scans of many kinds: right, or refused with a word on the kind."""

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.sequence import Sequence
from test_folders import dicom

from covid_utils.io.images import read_slice

RAMP = np.tile(np.linspace(0, 255, 50).round().astype(np.uint8), (50, 1))  # dark at the left, light at the right
STORED = (RAMP.astype(np.float32) / 255 * 1500).round().astype(np.uint16)  # -1350 to 150 Hounsfield units
PIXELS = {"Rows": 50, "Columns": 50, "PixelData": STORED.tobytes()}


def near(picture, wanted=RAMP, most=2):
    return np.abs(picture.astype(int) - wanted.astype(int)).max() <= most


# -------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(tmp_path, suffix, orientation):
    image = Image.fromarray(RAMP)
    exif = image.getexif()
    exif[274] = orientation
    undone = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undone |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    turned = image if orientation == 1 else image.transpose(Image.Transpose[undone[orientation]])
    turned.save(tmp_path / f"photo.{suffix}", exif=exif, **({"quality": 100} if suffix in ("jpg", "webp") else {}))
    assert near(read_slice(tmp_path / f"photo.{suffix}", 50), most=6)


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_white_is_zero(tmp_path, mode):
    image = Image.fromarray(RAMP)
    if mode == "I;16":
        image = Image.fromarray((65535 - 257 * RAMP.astype(np.uint16)).astype(np.uint16))
    elif mode == "1":
        image = Image.fromarray(RAMP > 127)
    wanted = np.asarray(image.convert("L")) if mode == "1" else RAMP
    if mode == "I;16":  # Pillow writes the values as they are, and only this tag says that 0 is white
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        image.save(tmp_path / "plain.tif", tiffinfo=tags)
        content = bytearray((tmp_path / "plain.tif").read_bytes())
        place = content.index(b"\x06\x01\x03\x00")  # PhotometricInterpretation, a SHORT
        content[place + 8] = 0
        (tmp_path / "x.tif").write_bytes(content)
    else:
        image.save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert near(read_slice(tmp_path / "x.tif", 50), wanted)


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
    image[:25, :, 3] = 0
    cv2.imwrite(str(tmp_path / "x.png"), image)
    found = read_slice(tmp_path / "x.png", 50)
    assert found[:20].max() == 0 and found[30:].min() == 255


def test_a_cameras_jpeg_with_a_preview(tmp_path):
    image = Image.fromarray(RAMP).convert("RGB")
    image.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[image.resize((10, 10))], quality=100)
    assert near(read_slice(tmp_path / "x.jpg", 50), most=4)


def test_too_many_pixels(tmp_path):
    Image.new("1", (50_000, 50_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read .*pixels.*: replace or delete"):
        read_slice(tmp_path / "bomb.png", 50)


# ----------------------------------------------------------------------------------------------------- DICOM


def test_hounsfield_units_get_the_lung_window(tmp_path):
    dicom(tmp_path / "x.dcm", 0, "p", **PIXELS)
    assert near(read_slice(tmp_path / "x.dcm", 50))
    assert read_slice(tmp_path / "x.dcm", 50, window=(-1350, 1650)).max() == pytest.approx(255 / 2, abs=1)


def test_rescale_in_functional_groups(tmp_path):
    value, group = pydicom.Dataset(), pydicom.Dataset()
    value.RescaleSlope, value.RescaleIntercept = 1, -1350
    group.PixelValueTransformationSequence = Sequence([value])
    for name, place in (("a", "SharedFunctionalGroupsSequence"), ("b", "PerFrameFunctionalGroupsSequence")):
        dicom(
            tmp_path / name, 0, "p", **PIXELS, NumberOfFrames=1, RescaleSlope=None, RescaleIntercept=None,
            **{place: Sequence([group])},
        )  # fmt: skip
        (tmp_path / name).rename(tmp_path / f"{name}.dcm")
        assert near(read_slice(tmp_path / f"{name}.dcm", 50))


def test_without_the_preamble(tmp_path):
    dicom(tmp_path / "x.dcm", 0, "p", **PIXELS)
    (tmp_path / "y.ima").write_bytes((tmp_path / "x.dcm").read_bytes()[132:])
    assert near(read_slice(tmp_path / "y.ima", 50))


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
    dicom(tmp_path / "x.dcm", 0, "p", **(PIXELS | {"RescaleSlope": None, "RescaleIntercept": None} | tags))
    assert near(read_slice(tmp_path / "x.dcm", 50))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "a CT slice with inverted greys"),
        ({"NumberOfFrames": 3, "PixelData": STORED.tobytes() * 3}, "holds 3 slices, save each as a file"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "a colour picture"),
    ],
)
def test_what_is_refused(tmp_path, tags, message):
    dicom(tmp_path / "x.dcm", 0, "p", **(PIXELS | tags))
    with pytest.raises(ValueError, match=f"x.dcm cannot be read .*{message}"):
        read_slice(tmp_path / "x.dcm", 50)


def test_dicom_that_holds_no_picture(tmp_path):
    dicom(tmp_path / "x.dcm", 0, "p", **PIXELS)
    data = pydicom.dcmread(tmp_path / "x.dcm")
    del data.PixelData
    data.save_as(tmp_path / "report.dcm")
    with pytest.raises(ValueError, match=r"report\.dcm cannot be read \(it holds no picture\)"):
        read_slice(tmp_path / "report.dcm", 50)


def test_padding_does_not_stretch_the_greys(tmp_path):
    """As in https://github.com/dgobbi/vtk-dicom/issues/173, here where the file gives no window."""
    padded = STORED.astype(np.int16)
    padded[:5] = -2000
    tags = {"PixelRepresentation": 1, "PixelPaddingValue": -2000, "PixelData": padded.tobytes(), "Modality": "MR"}
    dicom(tmp_path / "x.dcm", 0, "p", **(PIXELS | {"RescaleSlope": None, "RescaleIntercept": None} | tags))
    found = read_slice(tmp_path / "x.dcm", 50)
    assert near(found[5:], RAMP[5:]) and found[:5].max() == 0


def test_packed_pixels_that_nothing_here_can_unpack(tmp_path):
    """As people ask of pydicom: JPEG 2000 needs another package, and the file is not at fault."""
    dicom(tmp_path / "x.dcm", 0, "p", **PIXELS)
    data = pydicom.dcmread(tmp_path / "x.dcm")
    data.PixelData = pydicom.encaps.encapsulate([STORED.tobytes()[:1000]])
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.save_as(tmp_path / "x.dcm")
    with pytest.raises(ImportError, match=r"packed as JPEG 2000 .*: run 'python -m pip install pydicom \"pylibjpeg"):
        read_slice(tmp_path / "x.dcm", 50)


def test_rle_needs_nothing_else(tmp_path):
    dicom(tmp_path / "x.dcm", 0, "p", **PIXELS)
    data = pydicom.dcmread(tmp_path / "x.dcm")
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "x.dcm")
    assert near(read_slice(tmp_path / "x.dcm", 50))


def test_big_endian_16_bit_tiff(tmp_path):
    content = (257 * RAMP.astype(">u2")).tobytes()
    Image.frombytes("I;16B", (50, 50), content).save(tmp_path / "x.tif")
    assert near(read_slice(tmp_path / "x.tif", 50))
