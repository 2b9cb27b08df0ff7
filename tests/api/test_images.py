# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Every still photo becomes upright 8-bit sRGB on white, and hostile files become one named error."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import (
    ADOBE_LIKE,
    adobe_to_srgb,
    frames,
    gray16,
    photo,
    pixels,
    png_chunk,
    raw_png,
    saved,
    tiff_gray,
)
from PIL import Image, ImageCms, ImageOps

from picogram.errors import ImageError, ImageTooLarge, UnreadableImage, UnsupportedImage, UsageError
from picogram.images import MEDIA_TYPES, ImageLimits, from_array, normalise, read_image, write_image

# --- sources ---------------------------------------------------------------------------------------------


def test_bytes_path_and_file_give_the_same_pixels(tmp_path: Path) -> None:
    data = saved(photo(), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    expected = pixels(photo())
    for source in (data, path, io.BytesIO(data)):
        np.testing.assert_array_equal(pixels(read_image(source)), expected)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_every_allowed_format_is_read(format: str) -> None:
    image = read_image(saved(photo(), format))
    assert image.size == (48, 32)
    assert image.mode == "RGB"


def test_an_absent_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(UsageError, match="directory"):
        read_image(tmp_path)


def test_one_pixel_and_very_long_images_are_accepted() -> None:
    assert read_image(saved(photo(1, 1), "PNG")).size == (1, 1)
    assert read_image(saved(photo(30000, 2), "PNG")).size == (30000, 2)


def test_metadata_is_dropped() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a private note"
    image = read_image(saved(photo(), "JPEG", exif=exif, comment=b"private"))
    assert image.info == {}
    assert b"private" not in write_image(image, "image/jpeg")


# --- depth -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray_is_scaled_not_clipped(format: str) -> None:
    image = read_image(saved(Image.fromarray(gray16()), format))
    gray = pixels(image)[..., 0]
    np.testing.assert_array_equal(gray, np.rint(gray16() / 257))
    assert len(np.unique(gray)) == 256


def test_big_endian_sixteen_bit_gray_is_scaled() -> None:
    big = Image.frombytes("I;16B", (256, 4), gray16().astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(normalise(big))[..., 0], np.rint(gray16() / 257))


def test_sixteen_bit_colour_png_is_scaled() -> None:
    samples = np.repeat(gray16()[:, :, None], 3, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    image = read_image(raw_png(256, 4, 16, 2, zlib.compress(rows)))
    assert np.abs(pixels(image)[..., 0] - gray16() / 257).max() <= 1


def test_sixteen_bit_transparent_level_shows_white() -> None:
    rows = b"\0" + np.array([1000, 40000], ">u2").tobytes()
    clear = png_chunk(b"tRNS", struct.pack(">H", 1000))
    image = read_image(raw_png(2, 1, 16, 0, zlib.compress(rows), clear))
    assert pixels(image)[0, :, 0].tolist() == [255, round(40000 / 257)]


def test_sixteen_bit_tiff_with_white_at_zero_is_inverted() -> None:
    image = read_image(tiff_gray(gray16().astype("<u2").tobytes(), 256, 4, 16, photometric=0))
    np.testing.assert_array_equal(pixels(image)[..., 0], 255 - np.rint(gray16() / 257))


def test_twelve_bit_tiff_reaches_white() -> None:
    image = read_image(tiff_gray(b"\xff\xff\xff\x00\x00\x00", 4, 1, 12, photometric=1))
    assert pixels(image)[0, :, 0].tolist() == [255, 255, 0, 0]


@pytest.mark.parametrize("sample", [-1, 70_000])
def test_thirty_two_bit_samples_are_refused(sample: int) -> None:
    with pytest.raises(UnsupportedImage, match="16 bits"):
        read_image(saved(Image.fromarray(np.full((2, 2), sample, np.int32)), "TIFF"))


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="floating"):
        read_image(saved(Image.new("F", (4, 4), 0.5), "TIFF"))


# --- modes, alpha ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = normalise(Image.new(mode, (5, 3)))
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_white_in_lab_is_white() -> None:
    assert pixels(normalise(Image.new("LAB", (1, 1), (255, 128, 128)))).min() >= 254


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_keeps_light_and_dark(format: str) -> None:
    cmyk = Image.new("CMYK", (16, 8), (0, 0, 0, 0))
    cmyk.paste((0, 0, 0, 255), (0, 0, 8, 8))
    samples = pixels(read_image(saved(cmyk, format)))
    assert samples[4, 2].max() < 8
    assert samples[4, 13].min() > 247


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 2, 2))
    steps = {"RGBa": ["RGBa"], "La": ["LA", "La"], "PA": ["PA"]}.get(mode, [mode])
    for step in steps:
        clear = clear.convert(step)
    assert pixels(normalise(clear))[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_black_becomes_gray(mode: str) -> None:
    image = read_image(saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)).convert(mode), "PNG"))
    assert abs(pixels(image)[0, 0, 0] - 127) <= 1


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_transparent_palette_entries_become_white(transparency: int | bytes) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 10, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    image = read_image(saved(palette, "PNG", transparency=transparency))
    assert pixels(image)[0].tolist() == [[200, 10, 10], [255, 255, 255]]


@pytest.mark.parametrize(("mode", "colour", "key"), [("RGB", (9, 8, 7), (9, 8, 7)), ("L", 9, 9), ("1", 0, 0)])
def test_a_transparent_colour_key_becomes_white(mode: str, colour: Any, key: Any) -> None:
    image = read_image(saved(Image.new(mode, (2, 1), colour), "PNG", transparency=key))
    assert pixels(image).min() == 255


def test_normalise_leaves_its_argument_alone() -> None:
    image = photo()
    image.info["icc_profile"] = b"damaged"
    result = normalise(image)
    result.paste((0, 0, 0), (0, 0, 48, 32))
    np.testing.assert_array_equal(pixels(image), pixels(photo()))
    assert image.info == {"icc_profile": b"damaged"}


# --- orientation, colour ---------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_rotation_is_applied_once(format: str, orientation: int) -> None:
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = undo
    source = photo(64, 40)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(source, "PNG", exif=exif))))
    exif[0x0112] = orientation
    turned.info = {}
    options: dict[str, Any] = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}
    image = read_image(saved(turned, format, exif=exif, **options))
    assert image.size == (64, 40)
    assert np.abs(pixels(image) - pixels(source)).mean() < 4


def test_damaged_exif_counts_as_upright() -> None:
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(5)
    assert read_image(saved(photo(), "JPEG", exif=damaged)).size == (48, 32)


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = read_image(saved(photo(), "PNG", icc_profile=profile))
    assert np.abs(pixels(image) - pixels(photo())).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_wide_profile_is_converted_to_srgb(mode: str) -> None:
    colour = (150, 180, 90)
    source = Image.new("RGB", (4, 4), colour).convert(mode, palette=Image.Palette.ADAPTIVE)
    sample = pixels(read_image(saved(source, "PNG", icc_profile=ADOBE_LIKE)))[0, 0]
    assert np.abs(sample - colour).max() > 5
    assert np.abs(sample - adobe_to_srgb(colour)).max() <= 1.5


@pytest.mark.parametrize("profile", [b"damaged", b"\0" * 200, ADOBE_LIKE[:300], ADOBE_LIKE[:-40]])
def test_a_damaged_profile_is_ignored(profile: bytes) -> None:
    np.testing.assert_array_equal(
        pixels(read_image(saved(photo(), "PNG", icc_profile=profile))), pixels(photo())
    )


def test_a_profile_for_another_mode_is_ignored() -> None:
    gray = photo().convert("L")
    image = read_image(saved(gray, "PNG", icc_profile=ADOBE_LIKE))
    np.testing.assert_array_equal(pixels(image)[..., 0], np.asarray(gray))


# --- hostile and damaged ---------------------------------------------------------------------------------


def test_a_bomb_is_refused_before_decoding() -> None:
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(36001)) for _ in range(4000)) + packer.flush()
    bomb = raw_png(12000, 12000, 8, 2, rows)
    assert len(bomb) < 500_000
    with pytest.raises(ImageTooLarge, match="12000x12000"):
        read_image(bomb)


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_sizes_beyond_pillows_own_limit_are_too_large(side: int) -> None:
    with pytest.raises(ImageTooLarge):
        read_image(raw_png(side, side, 8, 2, zlib.compress(b"")))


def test_limits_are_configurable(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(photo(), "PNG")
    for limits in (
        ImageLimits(max_pixels=1535),
        ImageLimits(max_side=47),
        ImageLimits(max_bytes=len(data) - 1),
    ):
        with pytest.raises(ImageTooLarge, match="limit"):
            read_image(data, limits=limits)
        with pytest.raises(ImageTooLarge, match="limit"):
            read_image(io.BytesIO(data), limits=limits)
    exact = ImageLimits(max_pixels=1536, max_side=48, max_bytes=len(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # where Pillow would warn
    assert read_image(data, limits=exact).size == (48, 32)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95])
def test_a_truncated_file_is_unreadable(format: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    data = saved(noise, format)
    with pytest.raises(UnreadableImage):
        read_image(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_altered_bytes_raise_nothing_but_image_errors(format: str) -> None:
    random = np.random.default_rng(7)
    data = bytearray(saved(photo(), format))
    for _ in range(60):
        altered = bytearray(data)
        for place in random.integers(0, len(data), 4):
            altered[place] = random.integers(0, 256)
        try:
            assert read_image(bytes(altered)).mode == "RGB"
        except ImageError:
            continue


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"hello\n" * 99, bytes(999), b"P6", b"BM"])
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        read_image(data)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_and_pages_are_refused(format: str) -> None:
    first, *rest = frames()
    data = saved(first, format, save_all=True, append_images=rest)
    with pytest.raises(UnsupportedImage, match="animated"):
        read_image(data)
    with pytest.raises(UnsupportedImage, match="animated"):
        normalise(Image.open(io.BytesIO(data)))


def test_a_phone_photo_with_a_second_picture_behind_it_is_read() -> None:
    first, *rest = frames()
    data = saved(first, "MPO", save_all=True, append_images=rest)
    assert np.abs(pixels(read_image(data))[0, 0] - [255, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"),
        ("PDF", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
        ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("SVG", b'\xef\xbb\xbf<?xml version="1.0"?><svg/>'),
        ("HEIC", b"\0\0\0\x18ftypheic" + bytes(64)),
        ("JPEG 2000", saved(photo(), "JPEG2000")),
    ],
)
def test_other_formats_are_refused_by_name(name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        read_image(data)


def test_threads_read_at_the_same_time() -> None:
    data = saved(photo(), "PNG", icc_profile=ADOBE_LIKE)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: read_image(data).tobytes(), range(32)))
    assert set(results) == {read_image(data).tobytes()}


# --- arrays and output -----------------------------------------------------------------------------------


def test_arrays_become_images() -> None:
    samples = np.asarray(photo())
    np.testing.assert_array_equal(pixels(from_array(samples)), samples)
    np.testing.assert_array_equal(pixels(from_array(samples[::-1, ::2])), samples[::-1, ::2])
    np.testing.assert_array_equal(pixels(from_array(samples[..., 0]))[..., 2], samples[..., 0])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 1), np.uint8),
    ],
)
def test_arrays_of_another_shape_or_type_are_usage_errors(array: Any) -> None:
    with pytest.raises(UsageError, match="uint8"):
        from_array(array)


def test_pictures_without_pixels_are_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="no pixels"):
        from_array(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(UnreadableImage, match="no pixels"):
        normalise(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_what_is_written_reads_back(media_type: str) -> None:
    source = photo()
    source.info["icc_profile"] = ADOBE_LIKE
    data = write_image(source, media_type)
    image = read_image(data)
    assert Image.open(io.BytesIO(data)).get_format_mimetype() == media_type
    assert np.abs(pixels(image) - pixels(photo())).mean() < (1e-9 if media_type == "image/png" else 3)
    assert ADOBE_LIKE[:64] not in data


def test_unknown_media_types_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="image/png"):
        write_image(photo(), "image/tiff")


def test_a_side_too_long_for_the_format_is_said() -> None:
    with pytest.raises(UnsupportedImage, match="16383"):
        write_image(photo(30000, 2), "image/webp")
    assert read_image(write_image(photo(30000, 2), "image/png")).size == (30000, 2)


def test_other_modes_are_normalised_before_writing() -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert pixels(read_image(write_image(clear, "image/jpeg"))).min() > 250


# --- transparency keys, raw files, and what is refused by name -------------------------------------------


def keyed_png(bits: int, colour: int, row: bytes, key: bytes) -> bytes:
    """16x16, every row the same, with a transparent colour (tRNS)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, bits, colour, 0, 0, 0)) + chunk(b"tRNS", key)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * 16))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "seen"),
    [
        (1, 0, b"\0" * 2, (0,), 255),
        (1, 0, b"\0" * 2, (1,), 0),
        (2, 0, b"\x55" * 4, (1,), 255),
        (2, 0, b"\x55" * 4, (2,), 85),
        (4, 0, b"\x77" * 8, (7,), 255),
        (4, 0, b"\x22" * 8, (3,), 34),
        (8, 0, b"\x40" * 16, (0x40,), 255),
        (16, 0, b"\x12\x34" * 16, (0x1234,), 255),
        (16, 0, b"\x12\x34" * 16, (0x1235,), 18),
        (8, 2, b"\x40" * 48, (0x40,) * 3, 255),
        (16, 2, b"\x12\x34" * 48, (0x1234,) * 3, 255),
        (16, 2, b"\0" * 96, (256,) * 3, 0),
    ],
)
def test_a_transparent_colour_is_compared_at_the_files_depth(
    bits: int, colour: int, row: bytes, key: tuple[int, ...], seen: int
) -> None:
    data = keyed_png(bits, colour, row, struct.pack(f">{len(key)}H", *key))
    assert read_image(data).getpixel((3, 3)) == (seen,) * 3
    opened = Image.open(io.BytesIO(data))
    before = dict(opened.info)
    assert normalise(opened).getpixel((3, 3)) == (seen,) * 3
    assert opened.info == before


def tiff(tags: dict[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), "navy").save(out, "TIFF", tiffinfo=tags)
    return out.getvalue()


def test_the_preview_of_a_raw_file_is_not_taken_for_the_photograph() -> None:
    assert read_image(tiff({})).size == (16, 12)
    for tags in ({254: 1}, {50706: 0x01040000}):
        with pytest.raises(UnsupportedImage, match="develop it first"):
            read_image(tiff(tags))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" ""><svg/>', "SVG"),
        (b"<!-- drawn by hand -->\n\n<svg xmlns='x'/>", "SVG"),
        (b"\x00\x00\x01\x00\x01\x00\x10\x10", "icon"),
        (saved(photo(), "ICO"), "icon"),
        (b"icns\x00\x00", "icon"),
        (b"\x00\x00\x00\x18ftypcrx ", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
    ],
)
def test_what_people_send_by_mistake_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        read_image(data)
