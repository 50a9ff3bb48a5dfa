"""Real files of every mode that Pillow opens: white stays white, what is clear lies over white, faults are told."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from kfbench.data import decode
from kfbench.data.decode import Form

BYTES_OF_RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def file_of(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, depth: int, colour: int, row: bytes, clear: bytes = b"") -> bytes:
    """A PNG of one row, written by the format's rules: Pillow itself writes few of the modes that it reads."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", clear) if clear else b"", chunk(b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def shorts(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def row_of(content: bytes) -> list[list[int]]:
    """The pixels of a file of one row: a list a channel."""
    return decode.decode(content)[:, 0].tolist()


@pytest.mark.parametrize("form", ["png", "webp", "bmp", "tiff", "ppm"])
def test_colour_of_8_bits_is_taken_as_it_is(form: str) -> None:
    content = file_of(BYTES_OF_RGB, form, **({"lossless": True, "exact": True} if form == "webp" else {}))
    np.testing.assert_array_equal(decode.decode(content), BYTES_OF_RGB.transpose(2, 0, 1))


def test_grey_is_one_channel() -> None:
    grey = np.arange(256, dtype=np.uint8)[None]
    for form in ("png", "bmp", "tiff", "ppm"):
        assert row_of(file_of(grey, form)) == [list(range(256))]
    assert row_of(png(4, 2, 0, bytes([0b00011011]))) == [[0, 85, 170, 255]]  # two bits a pixel
    assert row_of(png(8, 1, 0, bytes([0b00011011]))) == [[0, 0, 0, 255, 255, 0, 255, 255]]


SIXTEEN_BITS = [round(value / 257) for value in (0, 128, 129, 20_000, 50_000, 65_535)]


@pytest.mark.parametrize("form", ["png", "tiff", "ppm"])
def test_16_bits_of_grey_are_scaled_and_not_cut_off(form: str) -> None:
    assert SIXTEEN_BITS == [0, 0, 1, 78, 195, 255]
    values = np.array([[0, 128, 129, 20_000, 50_000, 65_535]], np.uint16)
    by_hand = b"P5 6 1 65535\n" + shorts(*values[0])  # Pillow has not always written these
    assert row_of(by_hand if form == "ppm" else file_of(values, form)) == [SIXTEEN_BITS]


def test_16_bits_of_grey_in_the_other_order_of_bytes() -> None:
    image = Image.frombytes("I;16B", (6, 1), struct.pack(">6H", 0, 128, 129, 20_000, 50_000, 65_535))
    content = file_of(image, "tiff")
    assert Image.open(io.BytesIO(content)).mode == "I;16B" and row_of(content) == [SIXTEEN_BITS]


def test_16_bits_of_colour_are_scaled() -> None:
    red, green, blue = (20_000, 0), (50_000, 65_535), (257, 30_000)
    pixels = [value for pixel in zip(red, green, blue, strict=True) for value in pixel]
    for channel, values in zip(row_of(png(2, 16, 2, shorts(*pixels))), (red, green, blue), strict=True):
        assert all(abs(got - value / 257) < 1 for got, value in zip(channel, values, strict=True))  # Pillow cuts


def test_numbers_without_a_range_are_refused() -> None:
    for values, said in (
        (np.array([[0.2, 0.7]], np.float32), "floats"),
        (np.array([[20_000, 50_000]], np.int32), "integers"),
    ):
        with pytest.raises(ValueError, match=f"{said}.* no white of their own; save it with 8 or 16 bits"):
            decode.decode(file_of(values, "tiff"))


BLENDED = [[10, 132, 255], [20, 137, 255], [30, 142, 255]]  # (10, 20, 30) opaque, half clear, clear
CLEAR = {
    "RGBA": (file_of(np.array([[[10, 20, 30, a] for a in (255, 128, 0)]], np.uint8), "png"), BLENDED),
    "LA": (png(3, 8, 4, bytes([10, 255, 10, 128, 10, 0])), BLENDED[:1]),
    "L and a clear value": (png(3, 8, 0, bytes([10, 20, 30]), shorts(20)), [[10, 255, 30]]),
    "RGB and a clear colour": (
        png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), shorts(4, 5, 6)),
        [[1, 255], [2, 255], [3, 255]],
    ),
    "L of 4 bits and a clear value": (png(4, 4, 0, bytes([0x15, 0xAF]), shorts(5)), [[17, 255, 170, 255]]),
    "L of 2 bits and a clear value": (png(4, 2, 0, bytes([0b00011011]), shorts(1)), [[0, 255, 170, 255]]),
    "RGB of 16 bits and a clear colour": (
        png(2, 16, 2, shorts(20_000, 0, 257, 40_000, 514, 65_535), shorts(40_000, 514, 65_535)),
        [[78, 255], [0, 255], [1, 255]],
    ),
    "I;16 and a clear value": (png(3, 16, 0, shorts(20_000, 50_000, 257), shorts(50_000)), [[78, 255, 1]]),
    "1 and a clear value": (png(8, 1, 0, bytes([0b00001111]), shorts(0)), [[255] * 8]),
    "LA of 16 bits": (png(2, 16, 4, shorts(20_000, 65_535, 20_000, 0)), [[78, 255]]),  # Pillow opens it as RGBA
    "RGBA of 16 bits": (png(2, 16, 6, shorts(0, 0, 0, 65_535, 0, 0, 0, 0)), [[0, 255]] * 3),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_transparency_lies_over_white(kind: str) -> None:
    content, pixels = CLEAR[kind]
    assert row_of(content) == pixels


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    colours = [[10, 40, 70], [20, 50, 80], [30, 60, 90]]
    assert row_of(file_of(image, "png")) == colours and row_of(file_of(image, "gif")) == colours
    cleared = [[10, 255, 70], [20, 255, 80], [30, 255, 90]]
    for form in ("png", "gif"):
        assert row_of(file_of(image, form, transparency=1)) == cleared
    assert row_of(file_of(image, "png", transparency=bytes([255, 0, 255]))) == cleared  # an alpha for each colour


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = decode.decode(file_of(image, "jpeg", quality=100))[:, 0, 0].tolist()
    assert red < 5 and green > 250 and blue > 250  # cyan
    assert decode.decode(file_of(Image.new("CMYK", (8, 8)), "tiff")).min() == 255  # no ink at all


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_pictures_are_turned_upright(form: str) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste((255, 255, 255), (0, 0, 32, 8))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the upper edge is on the right
    found = decode.decode(file_of(image, form, exif=exif))
    assert found.shape == (3, 32, 16)
    assert found[:, :, 10:].min() > 230 and found[:, :, :6].max() < 25


@pytest.mark.parametrize("turn", range(1, 9))
def test_each_way_to_hold_a_camera_is_turned_as_pillow_turns_it(turn: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turn
    content = file_of(image, "png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode.decode(content), np.asarray(upright).transpose(2, 0, 1))


def test_notes_that_are_damaged_cost_no_picture() -> None:
    image = Image.new("RGB", (4, 4), "red")
    content = file_of(image, "png", exif=b"Exif\0\0XX*\0\x08\0\0\0\0\0")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(content)).getexif()
    assert decode.decode(content).shape == (3, 4, 4)


def test_sizes_are_stretched_or_cut_from_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :10], wide[:, 10:20] = 255, 100
    content = file_of(wide, "png")
    stretched, cut = (decode.decode(content, Form(10, 10, crop=crop)) for crop in (False, True))
    assert stretched.shape == cut.shape == (3, 10, 10)
    assert stretched[0, 0, 0] == 255 and stretched[0, 0, -1] == 0
    assert (cut == 100).all()
    assert decode.decode(content, Form(4, 12)).shape == (3, 4, 12)


def test_pillows_warnings_stay_silent_in_an_import(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfbench.data.importing import import_images

    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    cut_off = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
    warned = file_of(Image.new("RGB", (4, 4)), "jpeg", exif=cut_off)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(warned)).getexif()
    assert seen, "Pillow no longer warns of this; find another"
    for label in "ab":
        for split in ("train", "test"):
            path = tmp_path / "pictures" / split / label
            path.mkdir(parents=True)
            for number in range(2):
                (path / f"{number}.jpg").write_bytes(warned)
    assert import_images("clear", [tmp_path / "pictures"]).shape == (3, 4, 4)  # warnings are errors here


def test_what_is_too_large_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PIXELS", 5_000_000)
    large = file_of(Image.new("L", (3000, 2000)), "png")
    monkeypatch.setattr(Image.Image, "load", None)  # decoding would fail
    with pytest.raises(ValueError, match="2,000×3,000 pixels, more than the 5 million that an image may have"):
        decode.decode(large)
    bomb = png(60_000, 1, 0, b"\0").replace(struct.pack(">II", 60_000, 1), struct.pack(">II", 60_000, 60_000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    with pytest.raises(ValueError, match="far more than the 5 million"):
        decode.decode(bomb)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_what_is_no_image_is_said_so(content: bytes) -> None:
    with pytest.raises(ValueError, match="no image that Pillow knows"):
        decode.decode(content)
