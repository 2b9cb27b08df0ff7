# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The page end to end: a real browser, the real gateway, the real codec, whose files must be those of the library."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import serving

import picogram
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend

Visit = Callable[..., Any]
SAMPLES = Path(__file__).resolve().parents[2] / "web" / "samples"


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with serving(create_app(GatewaySettings(), embedded_backend())) as url:
        yield url


@pytest.fixture
def coded(visit: Visit, gateway: str) -> Any:
    """The page after the cat was coded in at most 700 bytes."""
    page = visit(gateway)
    page.get_by_role("button", name="Sample photo: a cat").click()
    page.get_by_label("File size, at most").fill("700")
    page.get_by_role("button", name="Encode").click()
    page.get_by_text("Done: ").wait_for(timeout=60_000)
    return page


def downloaded(page: Any, name: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def pixels(page: Any, side: str) -> Image.Image:
    """What the browser shows there, before it is stretched."""
    script = """image => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext("2d").drawImage(image, 0, 0);
        return canvas.toDataURL();
    }"""
    address = page.locator(f".compare .{side}").evaluate(script)
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return image.convert("RGB")


def test_the_file_is_the_librarys_and_the_picture_is_drawn_from_it(coded: Any) -> None:
    name, data = downloaded(coded, "Download .pico")
    assert name == "chelsea.pico"
    assert data == picogram.encode(SAMPLES / "chelsea.jpg", bytes=700)
    assert coded.locator("#file-bytes").inner_text() == str(len(data))
    assert bytes.fromhex(coded.locator("#hex pre").text_content()) == data
    drawn = picogram.decode(data)
    assert pixels(coded, "right").tobytes() == drawn.tobytes()
    name, picture = downloaded(coded, "Save picture")
    assert name == "chelsea.png"
    with Image.open(io.BytesIO(picture)) as image:
        assert image.convert("RGB").tobytes() == drawn.tobytes()
    sizes = {
        row.get_attribute("data-part"): row.locator("td").first for row in coded.locator(".parts tr").all()
    }
    facts = picogram.inspect(data)
    assert sizes["latent"].inner_text() == f"{facts.sections['latent']} bytes"
    assert sizes["header"].inner_text() == f"{len(data) - facts.sections['latent']} bytes"


def test_classical_codecs_at_no_more_bytes(coded: Any) -> None:
    size = int(coded.locator("#file-bytes").inner_text())
    for name in ("AVIF", "WebP", "JPEG"):
        coded.get_by_role("radio", name=name).check()
        image = coded.get_by_role("img", name=name, exact=True)
        image.wait_for()
        tag = coded.locator(".tag-left").inner_text()
        assert tag.startswith(f"{name} · ")
        assert 0 < int(tag.split()[2]) <= size
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") < 451
        box, frame = image.bounding_box(), coded.locator("#compare").bounding_box()
        assert (box["width"], box["height"]) == (frame["width"], frame["height"])
    coded.get_by_role("radio", name="Original").check()
    coded.get_by_role("img", name="Original", exact=True).wait_for()
    assert pixels(coded, "left").size == (451, 300)


def test_a_codec_without_a_file_that_small_says_so(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    page.get_by_role("button", name="Sample photo: a rocket").click()
    page.get_by_label("File size, at most").fill("120")
    page.get_by_role("button", name="Encode").click()
    page.get_by_text("Done: ").wait_for(timeout=60_000)
    page.get_by_role("radio", name="AVIF").check()
    page.get_by_text("AVIF has no file this small: the smallest AVIF file of this picture has").wait_for()


def test_the_divide_follows_the_pointer(coded: Any) -> None:
    frame = coded.locator("#compare").bounding_box()
    slider = coded.get_by_role("slider", name="Divide")
    coded.mouse.move(frame["x"] + 0.5 * frame["width"], frame["y"] + 40)
    coded.mouse.down()
    for share in (0.7, 0.25, -0.5, 0.9):
        coded.mouse.move(frame["x"] + share * frame["width"], frame["y"] + 60)
        expected = min(100, max(0, 100 * share))
        assert int(slider.get_attribute("aria-valuenow")) == pytest.approx(expected, abs=1)
    coded.mouse.up()
    coded.mouse.move(frame["x"] + 0.1 * frame["width"], frame["y"] + 60)
    assert int(slider.get_attribute("aria-valuenow")) == pytest.approx(90, abs=1)
    line = coded.locator(".divide").bounding_box()
    middle = (line["x"] + line["width"] / 2 - frame["x"]) / frame["width"]
    assert middle == pytest.approx(0.9, abs=0.01)


def test_a_pico_file_is_opened_and_drawn(visit: Visit, gateway: str) -> None:
    data = picogram.encode(SAMPLES / "coffee.jpg", bytes=400)
    page = visit(gateway)
    page.locator("#file").set_input_files({"name": "renamed.bin", "mimeType": "", "buffer": data})
    page.get_by_text(f"Done: {len(data)} bytes.").wait_for(timeout=60_000)
    assert pixels(page, "right").tobytes() == picogram.decode(data).tobytes()
    assert not page.get_by_role("slider", name="Divide").is_visible()
    assert not page.get_by_role("radio", name="AVIF").is_visible()
    assert downloaded(page, "Download .pico") == ("renamed.pico", data)


def test_the_qr_code_holds_the_file(coded: Any) -> None:
    zxing = pytest.importorskip("zxingcpp", reason="needs the zxing-cpp package")
    _, data = downloaded(coded, "Download .pico")
    coded.get_by_role("button", name="QR code").click()
    name, picture = downloaded(coded, "Save as PNG")
    assert name == "chelsea-qr.png"
    with Image.open(io.BytesIO(picture)) as image:
        (found,) = zxing.read_barcodes(image.convert("L"))
    assert found.bytes == data
    assert coded.locator("#qr-facts").inner_text().startswith(f"{len(data)} bytes in ")


@pytest.mark.parametrize("size", [1, 256, 2953])
def test_any_bytes_up_to_the_largest_code(visit: Visit, gateway: str, size: int) -> None:
    zxing = pytest.importorskip("zxingcpp", reason="needs the zxing-cpp package")
    data = bytes(range(256)) if size == 256 else random.Random(size).randbytes(size)
    script = """async bytes => {
        const { CAPACITY, drawQr } = await import("/web/qr.js");
        const canvas = document.createElement("canvas");
        const modules = drawQr(canvas, new Uint8Array(bytes));
        return [CAPACITY, modules, canvas.toDataURL()];
    }"""
    capacity, modules, address = visit(gateway).evaluate(script, list(data))
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        (found,) = zxing.read_barcodes(image.convert("L"))
    assert found.bytes == data
    assert (capacity, modules) == (2953, {1: 21, 256: 57, 2953: 177}[size])


def test_a_file_too_large_for_a_code_offers_none(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    targets: list[tuple[dict[str, Any], bool]] = [({"bytes": 2900}, True), ({"quality": 100}, False)]
    for target, fits in targets:
        data = picogram.encode(SAMPLES / "coffee.jpg", **target)
        assert (len(data) <= 2953) is fits
        page.locator("#file").set_input_files({"name": "coffee.pico", "mimeType": "", "buffer": data})
        page.get_by_text(f"Done: {len(data):,} bytes").wait_for(timeout=60_000)
        assert page.get_by_role("button", name="QR code").is_visible() is fits
        assert page.get_by_text("Too large for one QR code").is_visible() is not fits
