"""A file's bytes become pixels: every mode of Pillow scaled by its own range, upright, without transparency.

- Grey and colour of 8 bits a channel are taken as they are. 16 bits are scaled by 65,535, 1 bit by 1.
- Numbers without a range of their own (32-bit integers, floats) are refused: what is white in them nobody has said.
- Transparent parts are composed over white.
- CMYK, YCbCr and HSV become RGB by Pillow's formulas; colour profiles are not applied.
- What EXIF says of a picture's orientation is applied; of an animation the first picture is taken.
"""

import io
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from kfbench.errors import KfbenchError

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES = 256 * 2**20  # of a file, unpacked
PIXELS = 100_000_000  # of an image
GREY = ("1", "L", "LA", "La")
SIXTEEN = 65_535  # white of 16 bits
OF_16_BITS = ("PNG", "PPM")  # formats whose "I" holds 16 bits
GREY_PNG = (0, 4)  # types of colour that a PNG's header says; Pillow opens 16 bits with transparency as colour
ORIENTATION = 0x0112  # of EXIF's tags
TURNS = {  # its values, and what sets such a picture upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
BACKGROUND = "white"  # what transparent parts are composed over


class Form(NamedTuple):
    """What size images get: H, W; stretched to it, or cut from the middle of the resized image."""

    height: int
    width: int
    crop: bool = False

    @property
    def way(self) -> Literal["stretched", "cropped"]:
        """How an image comes to the size, as a pack and a student's description have it."""
        return "cropped" if self.crop else "stretched"


def size_of(text: str) -> tuple[int, int]:
    """Read "HxW". Raises KfbenchError if it is no size."""
    found = re.fullmatch(r"([1-9]\d{0,3})[x×]([1-9]\d{0,3})", text)
    if found is None:
        most = ", each 1 to 9999" if re.fullmatch(r"\d+[x×]\d+", text) else ""
        raise KfbenchError(f"size '{text}' is not HxW in pixels, as 32x32{most}")
    return int(found[1]), int(found[2])


def decode(content: bytes, form: Form | None = None) -> np.ndarray:
    """Return the pixels [C, H, W] uint8 of an image file, C 1 for grey and 3 for colour.

    Raises ValueError with the reason for what is no image, has more than PIXELS or a mode without a range; Pillow
    raises a dozen other kinds for damaged bytes.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise ValueError("no image that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise ValueError(_too_many("far more")) from error
    if opened.width * opened.height > PIXELS:
        raise ValueError(_too_many(f"{opened.height:,}×{opened.width:,} pixels, more"))
    kind = opened.format or ""
    opened.load()
    if kind == "PNG":
        _mend_clear(opened, content)
    upright = opened if kind == "TIFF" else _turned(opened)  # loading turns a TIFF already
    found = pixels(upright, form, kind=kind)
    return found[:1] if kind == "PNG" and content[25] in GREY_PNG else found


def _mend_clear(image: "Image", content: bytes) -> None:
    """Say which value of a PNG is transparent in the 8 bits that Pillow gives, where the file has fewer or more.

    Pillow scales the pixels of 2 and 4 bits, and takes the upper half of colour of 16, but leaves that value as it is.
    """
    depth, colour, clear = content[24], content[25], image.info.get("transparency")
    if colour == 0 and depth in (2, 4) and isinstance(clear, int) and clear < 2**depth:
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    elif colour == 2 and depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _turned(image: "Image") -> "Image":
    """Return a photograph as its camera was held; what else its notes say, or that they are damaged, is no matter."""
    from PIL.Image import Transpose

    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of any kind: cameras write what they like, and the pixels are sound
        return image
    return image if turn is None else image.transpose(Transpose[turn])


def pixels(image: "Image", form: Form | None = None, *, kind: str = "") -> np.ndarray:
    """Return the pixels [C, H, W] uint8 of an opened image; `kind` is the format it came in."""
    return _array(_formed(_plain(image, kind), form))


def formed(pixels: np.ndarray, form: Form | None) -> np.ndarray:
    """Return the pixels [C, H, W] uint8 of an image in another size."""
    from PIL import Image

    plain = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return _array(_formed(plain, form))


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels [1, H, W] uint8 of an image of colour in grey, by Pillow's weights."""
    from PIL import Image

    return _array(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))


def _formed(plain: "Image", form: Form | None) -> "Image":
    from PIL import Image, ImageOps

    if form is not None and plain.size != (form.width, form.height):
        size = (form.width, form.height)
        resized = Image.Resampling.BICUBIC
        return ImageOps.fit(plain, size, resized) if form.crop else plain.resize(size, resized)
    return plain


def _array(plain: "Image") -> np.ndarray:
    found = np.asarray(plain)
    return found[None] if found.ndim == 2 else np.ascontiguousarray(found.transpose(2, 0, 1))


def _too_many(what: str) -> str:
    return f"it has {what} than the {PIXELS // 10**6} million that an image may have"


def _plain(image: "Image", kind: str) -> "Image":
    """Return an image as grey of 8 bits (mode L) or as RGB."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in OF_16_BITS):
        values = np.asarray(image).astype(np.int64)
        scaled = (values * 255 + SIXTEEN // 2) // SIXTEEN
        clear = image.info.get("transparency")  # the one value that is transparent
        if isinstance(clear, int):
            scaled[values == clear] = 255
        return Image.fromarray(scaled.astype(np.uint8))
    if image.mode in ("I", "F"):
        numbers = "floats" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its pixels are {numbers}, which have no white of their own; save it with 8 or 16 bits")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        whole = Image.new("RGBA", image.size, BACKGROUND)
        flat = Image.alpha_composite(whole, image.convert("RGBA"))
        return flat.convert("L" if image.mode in GREY else "RGB")
    return image.convert("L" if image.mode in GREY else "RGB")
