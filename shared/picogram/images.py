# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Images in and out: any still photo becomes upright 8-bit sRGB, and leaves as PNG, WebP, AVIF or JPEG.

    bytes | Path | file ──read_image──┐
    PIL image ───────────normalise────┼─> PIL "RGB", upright, sRGB, opaque ──write_image──> bytes
    [H,W,3] or [H,W] u8 ─from_array───┘

    lazy open (allow-list) → size → one frame? → decode → 8 bits → ICC to sRGB → white behind alpha → upright

Input is hostile: the size is checked before a pixel is decoded, and whatever Pillow raises leaves here as an
``ImageError`` with one line for a person. Metadata (EXIF, ICC, XMP, text) is dropped, for privacy; depth
beyond 8 bits, wide gamut and transparency are lost by design.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from picogram.errors import ImageTooLarge, PicogramError, UnreadableImage, UnsupportedImage, UsageError

# Pillow registers 45 formats, among them EPS (runs Ghostscript) and WMF; only these are tried.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")

# Signatures of what people do send, to say more than "not an image": (offset, bytes, name).
_REFUSED: Final = (
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or XML"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)"),
    (0, b"\x00\x00\x02\x00", "a cursor (CUR)"),
    (0, b"icns", "an icon (ICNS)"),
    (4, b"ftypcrx", "a camera's raw file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (0, b"FOVb", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIU\x00", "a camera's raw file"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
)

_SVG: Final = re.compile(rb"<!DOCTYPE\s+svg|<svg[\s>]", re.IGNORECASE)
_SVG_HEAD: Final = 4096
_SUBFILE_TYPE: Final = 254
_DNG_VERSION: Final = 50_706
"""Tags of TIFF."""
_GRAY_STEPS: Final = {"1": 255, "L;1": 255, "L;2": 85, "L;4": 17}
"""Between two of a file's gray levels, once they have 8 bits."""
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# ``warnings.catch_warnings`` swaps global state; without the lock two threads could leave it swapped.
_warnings_lock = threading.Lock()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is accepted. Pillow's own bomb limit (about 179 million pixels) holds in addition."""

    max_pixels: int = 40_000_000
    max_bytes: int = 64 * 1024 * 1024
    max_side: int = 65_535


@dataclass(frozen=True, slots=True)
class MediaType:
    """One output format: Pillow's name, the file suffix, the longest side it can hold, options for saving."""

    format: str
    suffix: str
    max_side: int
    options: Mapping[str, Any] = field(default_factory=dict)


# Decoded pictures are for looking at: near-transparent quality, and speed before the last percent of size.
MEDIA_TYPES: Final[Mapping[str, MediaType]] = MappingProxyType(
    {
        "image/png": MediaType("PNG", ".png", 2**31 - 1, {"compress_level": 1}),
        "image/webp": MediaType("WEBP", ".webp", 16_383, {"quality": 90, "method": 4}),
        "image/avif": MediaType("AVIF", ".avif", 65_535, {"quality": 85, "speed": 8, "subsampling": "4:4:4"}),
        "image/jpeg": MediaType("JPEG", ".jpg", 65_500, {"quality": 92, "subsampling": 0}),
    }
)

DEFAULT_LIMITS: Final = ImageLimits()


def read_image(source: bytes | Path | BinaryIO, *, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Read one still image: mode "RGB", upright, sRGB, alpha on white, 1x1 or larger, no metadata.

    Raises UnreadableImage (empty, damaged, truncated, not an image), UnsupportedImage (animated, a format or
    pixel type refused by policy), ImageTooLarge (bytes, pixels, a side), UsageError (the path is unreadable).
    """
    data = _read_bytes(source, limits)
    if not data:
        raise UnreadableImage("the image is empty")
    image = _mapped(lambda: _open(data, limits))
    return normalise(image, limits)


def read_size(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height as stored, from the header alone: cheap, and no promise that the rest can be read.

    Raises the ImageErrors of ``read_image`` as far as the header shows them.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the file is more than the limit of {limits.max_bytes:,} bytes")
    return _mapped(lambda: _open(data, limits).size)


def normalise(image: Image.Image, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The same treatment for a PIL image, which is not altered; the result is a new "RGB" image.

    Raises the ImageErrors of ``read_image``.
    """
    check_size(*image.size, limits)
    return _mapped(lambda: _normalise(image, limits))


def from_array(array: NDArray[np.uint8], limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """An "RGB" image of sRGB samples [H,W,3] or gray samples [H,W], uint8 0..255.

    Raises UsageError for any other shape or dtype, ImageTooLarge, UnreadableImage (no pixels).
    """
    gray = array.ndim == 2
    if array.dtype != np.uint8 or not (gray or (array.ndim == 3 and array.shape[2] == 3)):
        raise UsageError(f"need uint8 [H,W,3] or [H,W], got {array.dtype} {list(array.shape)}")
    check_size(array.shape[1], array.shape[0], limits)
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def write_image(image: Image.Image, media_type: str) -> bytes:
    """The file bytes of an "RGB" image in one of MEDIA_TYPES, without metadata.

    Raises UsageError for a media type that is not in the table, UnsupportedImage when the format cannot hold
    a side that long or this Pillow build cannot write it.
    """
    if media_type not in MEDIA_TYPES:
        raise UsageError(f"cannot write {media_type!r}; choose from {', '.join(MEDIA_TYPES)}")
    target = MEDIA_TYPES[media_type]
    if max(image.size) > target.max_side:
        width, height = image.size
        raise UnsupportedImage(f"{width}x{height} does not fit {media_type}: {target.max_side} pixels a side")
    if image.mode != "RGB":
        image = normalise(image, ImageLimits(max_pixels=image.width * image.height))
    # Only the pixels: ``save`` would copy an ICC profile or EXIF block that hangs on ``image.info``.
    plain = image.copy()
    plain.info = {}
    out = io.BytesIO()
    try:
        plain.save(out, format=target.format, **target.options)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise UnsupportedImage(f"cannot write {media_type}: {_one_line(error)}") from error
    return out.getvalue()


def check_size(width: int, height: int, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Raises ImageTooLarge above the limits and UnreadableImage when there are no pixels at all."""
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width}x{height})")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{width}x{height} is more than the limit of {limits.max_pixels:,} pixels")
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width}x{height} is more than the limit of {limits.max_side:,} pixels a side")


def _read_bytes(source: bytes | Path | BinaryIO, limits: ImageLimits) -> bytes:
    """At most ``max_bytes`` bytes: one more is asked for, so that a pipe without end stops too."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                data = file.read(limits.max_bytes + 1)
        elif isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source[: limits.max_bytes + 1])
        else:
            data = source.read(limits.max_bytes + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the file is more than the limit of {limits.max_bytes:,} bytes")
    return data


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Header only, size checked. Pillow's bomb *warning* is muted: ``limits`` decide right after it."""
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        head = data[:256].removeprefix(b"\xef\xbb\xbf")
        for offset, signature, name in _REFUSED:
            if head[offset : offset + len(signature)] == signature:
                raise UnsupportedImage(f"{name} is not accepted; send {', '.join(FORMATS)}") from None
        if head.lstrip().startswith(b"<") and _SVG.search(data[:_SVG_HEAD]):
            raise UnsupportedImage(f"SVG is not accepted; send {', '.join(FORMATS)}") from None
        raise UnreadableImage("not an image, or a damaged one") from None
    _refuse_raw(image, data)
    check_size(*image.size, limits)
    return image


def _refuse_raw(image: Image.Image, data: bytes) -> None:
    """Cameras' raw files are TIFFs whose first picture is a preview: the photograph itself has to be developed."""
    tags = getattr(image, "tag_v2", {})
    preview = isinstance(kind := tags.get(_SUBFILE_TYPE, 0), int) and kind & 1
    if image.format == "TIFF" and (_DNG_VERSION in tags or preview or data[8:10] == b"CR"):
        raise UnsupportedImage("a camera's raw file is not accepted: develop it first")


def _normalise(image: Image.Image, limits: ImageLimits) -> Image.Image:
    with _quiet():
        # An MPO is a phone's JPEG with a depth map or preview behind it: its first frame is the photo.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise UnsupportedImage("animated or multi-page images are not accepted")
    raw = _raw_mode(image)
    image.load()
    check_size(*image.size, limits)
    image = _scaled_key(image, raw)
    orientation = _orientation(image)
    profile = image.info.get("icc_profile")
    colour, alpha = _eight_bits(image)
    rgb = _to_srgb(colour, profile)
    if alpha is not None:
        canvas = Image.new("RGB", rgb.size, "white")
        canvas.paste(rgb, mask=alpha)
        rgb = canvas
    rgb = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
    rgb.info = {}
    return rgb


def _raw_mode(image: Image.Image) -> str:
    """How the file's samples are stored, such as "L;4"; known until they are loaded."""
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    found = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return found if isinstance(found, str) else ""


def _scaled_key(image: Image.Image, raw: str) -> Image.Image:
    """Pillow gives samples 8 bits and leaves the transparent colour (PNG's tRNS) at the file's depth."""
    key: Any = image.info.get("transparency")
    if isinstance(key, int) and raw in _GRAY_STEPS and image.mode in ("1", "L"):
        key = min(255, key * _GRAY_STEPS[raw])
    elif isinstance(key, tuple) and raw.startswith("RGB;16"):
        key = tuple(sample >> 8 for sample in key)
    else:
        return image
    scaled = image.convert("L") if image.mode == "1" else image.copy()
    scaled.info["transparency"] = key
    return scaled


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8, after decoding (Pillow turns a TIFF then); damaged EXIF counts as upright."""
    try:
        with _quiet():
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the block is parsed by hand in Pillow: struct.error, KeyError, SyntaxError, ...
        return 1
    return value if isinstance(value, int) else 1


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """(colour in mode L, RGB, CMYK or LAB, alpha in mode L or None), 8 bits per sample."""
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise UnsupportedImage("floating-point pixels are not accepted: which value is white is unknown")
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        gray = image.mode in ("LA", "La")
        straight = image.convert("LA" if gray else "RGBA")
        return straight.convert("L" if gray else "RGB"), straight.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_integers(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Gray samples of 16 bits, scaled to 8: Pillow's ``convert("L")`` would clip all above 255 to white."""
    samples = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(258) == (12,) else 65_535
    if samples.size and (int(samples.min()) < 0 or int(samples.max()) > white):
        raise UnsupportedImage("samples of more than 16 bits are not accepted")
    gray = ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(262) == 0:  # WhiteIsZero, which Pillow honours for 8 bits only
        gray = np.invert(gray)
    clear = image.info.get("transparency")
    alpha = None
    if isinstance(clear, int):
        alpha = Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8))
    return Image.fromarray(gray), alpha


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A new image of RGB samples in sRGB; a profile that is damaged or made for another mode is ignored."""
    if image.mode == "LAB":
        lab: Any = ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(lab, ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, transform) or image
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings about odd metadata; for short, header-only work, since it takes a lock."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _mapped(work: Callable[[], T]) -> T:
    """Runs ``work``; what Pillow raises (OSError, SyntaxError, struct.error, ...) becomes an ImageError."""
    try:
        return work()
    except PicogramError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageTooLarge("more pixels than this installation decodes") from error
    except Exception as error:  # plugins raise nearly every built-in type on damaged data
        raise UnreadableImage(f"damaged image: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
