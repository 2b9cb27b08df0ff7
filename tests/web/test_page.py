# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, over the real gateway with workers that do as they are told: what may happen on the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from page_steps import choose, encode, finished, until, upload
from PIL import Image
from serving import Codec, fake_gateway, png, serving

from picogram.errors import ModelMissing
from picogram.jobs import Job

Visit = Callable[..., Any]
PROBLEM = "application/problem+json"


def problem(page: Any) -> str:
    page.get_by_role("alert").wait_for()
    text: str = page.get_by_role("alert").inner_text()
    return text


def bring(page: Any, kind: str, data: bytes, name: str) -> None:
    """As if the file were pasted or dropped."""
    script = """([kind, bytes, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
        const options = {bubbles: true, cancelable: true, clipboardData: transfer, dataTransfer: transfer};
        const event = kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options);
        document.body.dispatchEvent(event);
    }"""
    page.evaluate(script, [kind, list(data), name])


def width_of(page: Any) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def photo() -> bytes:
    return png(Image.linear_gradient("L").convert("RGB").resize((120, 80)))


def test_the_first_look(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    assert page.get_by_role("heading", level=1).inner_text() == "A photograph in a few hundred bytes"
    assert "Not for evidence, medicine or identity" in page.locator(".caveat").inner_text()
    assert page.get_by_role("button", name="Encode").is_disabled()
    assert page.get_by_role("radio", name="Picture and caption").is_visible()
    assert not page.get_by_role("textbox", name="Caption").is_visible()


def test_the_interface_is_described_without_any_other_server(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    page.goto(f"{gateway}/docs")
    page.get_by_role("heading", name="Picogram").wait_for()
    page.get_by_text("/v1/encode", exact=True).click()
    page.get_by_text("Largest size of the file").wait_for()


def test_progress_and_an_early_picture_are_shown_while_it_is_coded(
    visit: Visit, gateway: str, codec: Codec
) -> None:
    codec.go = threading.Event()
    page = visit(gateway)
    choose(page)
    encode(page)
    page.get_by_text("Coding the picture: 25 %").wait_for()
    assert page.get_by_role("progressbar").get_attribute("value") == "0.175"
    early = page.get_by_role("img", name="An early picture")
    early.wait_for()
    assert early.evaluate("image => image.decode().then(() => image.naturalWidth)") == 16
    codec.go.set()
    finished(page)
    assert not page.get_by_role("progressbar").is_visible()


def test_canceling_reaches_the_worker(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.go = threading.Event()
    page = visit(gateway)
    choose(page)
    encode(page)
    page.get_by_role("img", name="An early picture").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled.").wait_for()
    assert page.get_by_role("img", name="Your photo").is_visible()
    until(lambda: codec.canceled == [job.id for job in codec.encoded])
    assert page.get_by_role("button", name="Encode").is_enabled()
    assert not page.get_by_role("alert").is_visible()
    codec.go.set()
    encode(page)
    finished(page)


def test_what_the_server_refuses_is_said_in_its_words(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.error = ModelMissing("latent-2 <b>is missing</b>: run `picogram models pull`")
    page = visit(gateway)
    choose(page)
    encode(page)
    title, detail = problem(page).split("\n", 1)
    assert title == "Model missing"
    assert detail.casefold() == "latent-2 <b>is missing</b>: run `picogram models pull`"
    codec.error = None
    encode(page)
    finished(page)
    assert not page.get_by_role("alert").is_visible()


def test_files_that_are_no_pictures(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    upload(page, "letter.png", "image/png", b"Dear Sir or Madam")
    page.get_by_text("This browser cannot show such a file").wait_for()
    encode(page)
    assert "Unreadable image" in problem(page)
    upload(page, "photo.pico", "", b"Dear Sir or Madam")
    assert "Not a picogram" in until(lambda: "picogram" in problem(page) and problem(page))
    assert page.get_by_text("Drop a photo here").is_visible()
    assert page.get_by_role("button", name="Encode").is_disabled()
    upload(page, "nothing.png", "image/png", b"")
    assert "Empty file" in until(lambda: "Empty" in problem(page) and problem(page))


def test_a_server_that_is_gone(visit: Visit, codec: Codec) -> None:
    with serving(fake_gateway(codec)) as url:
        page = visit(url)
        choose(page)
    encode(page)
    assert "No connection" in problem(page)


def test_a_size_that_is_none_is_not_sent(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    field = page.get_by_label("File size, at most")
    for typed in ("", "0", "-5", "1.5", "2000000"):
        field.fill(typed)
        encode(page)
        assert page.get_by_text("A whole number from 1").is_visible(), typed
        assert field.evaluate("field => field === document.activeElement")
    assert codec.encoded == []


def test_presets_slider_and_number_agree(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    number, slider = page.get_by_label("File size, at most"), page.get_by_role("slider", name="File size")
    page.get_by_role("button", name="1,500").click()
    assert number.input_value() == "1500"
    assert "1,500 bytes, 0.089 bits per pixel" in slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("Home")
    assert number.input_value() == "100"
    page.keyboard.press("End")
    assert number.input_value() == "10000"
    assert "too large for a QR code" in page.locator("#rate").inner_text()
    number.fill("321")
    page.keyboard.press("Enter")
    finished(page)
    assert codec.encoded[0].options["bytes"] == 321


def test_a_caption_goes_in_and_comes_back_as_text(visit: Visit, gateway: str, codec: Codec) -> None:
    caption = "<img src=x onerror=alert(1)> 100% Höhlenbär & Söhne ☕"
    codec.warnings = ("the objects were <i>left out</i>",)
    page = visit(gateway)
    choose(page)
    page.get_by_role("radio", name="Picture and caption").check()
    page.get_by_role("textbox", name="Caption").fill(caption)
    encode(page)
    finished(page)
    assert page.locator("#caption-shown blockquote").inner_text() == caption
    assert "<i>left out</i>" in page.locator("#warning").inner_text()
    assert page.locator("[data-part=caption] td").first.inner_text() == f"{len(caption.encode())} bytes"
    page.get_by_role("textbox", name="Caption").fill("")
    encode(page)
    until(lambda: page.locator("#caption-shown blockquote").inner_text() == "What the captioner sees.")


def test_the_parts_of_the_file_add_up(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    choose(page)
    page.get_by_role("radio", name="Picture and caption").check()
    encode(page)
    finished(page)
    cells = page.locator(".parts td:nth-child(2)").all_inner_texts()
    shares = page.locator(".parts td:nth-child(3)").all_inner_texts()
    assert len(cells) == 3
    total = int(page.locator("#file-bytes").inner_text().replace(",", ""))
    assert sum(int(cell.split()[0].replace(",", "")) for cell in cells) == total
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=1)
    widths = [piece.bounding_box()["width"] for piece in page.locator(".bar span").all()]
    assert len(widths) == 3
    assert widths[0] > 0.9 * sum(widths)
    assert len(page.locator("#hex pre").text_content().split()) == total


def test_events_are_taken_up_where_they_broke_off(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.go = go = threading.Event()
    page = visit(gateway)
    asked: list[str | None] = []

    def first_breaks_off(route: Any) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            body = ": hello\n\nid: 0-1\nevent: queued\ndata: {}\n\nid: 0-2\nevent: running\nda"
            route.fulfill(status=200, content_type="text/event-stream", body=body)
        else:
            go.set()
            route.continue_()

    page.route("**/events", first_breaks_off)
    choose(page)
    encode(page)
    finished(page)
    assert asked[:2] == [None, "0-1"]


def test_without_events_the_page_asks_for_the_state(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.go = threading.Event()
    page = visit(gateway)
    asked: list[Job | None] = []

    def refused(route: Any) -> None:
        asked.append(None)
        route.abort()

    page.route("**/events", refused)
    choose(page)
    encode(page)
    page.get_by_text("Coding the picture: 25 %").wait_for()
    codec.go.set()
    finished(page)
    assert len(asked) >= 3


def test_a_busy_server_is_asked_again(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    keys: list[str] = []

    def full_at_first(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            body = {"type": "https://picogram.dev/problems/queue-full", "title": "Queue full", "status": 503}
            route.fulfill(status=503, content_type=PROBLEM, headers={"Retry-After": "1"}, json=body)
        else:
            route.continue_()

    page.route("**/v1/encode?*", full_at_first)
    choose(page)
    encode(page)
    page.get_by_text("The server is busy; trying again in 1 s").wait_for()
    finished(page)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len(codec.encoded) == 1


def test_an_api_key_is_asked_for_and_kept_in_the_tab(visit: Visit, codec: Codec) -> None:
    hashed = hashlib.sha256(b"open sesame").hexdigest()
    with serving(fake_gateway(codec, api_keys=f"me:{hashed}")) as url:
        page = visit(url)
        dialog = page.get_by_role("dialog", name="This server asks for an API key")
        dialog.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        dialog.get_by_text("The key in use was refused").wait_for()
        dialog.get_by_label("API key").fill("open sesame")
        dialog.get_by_role("button", name="Use this key").click()
        dialog.wait_for(state="hidden")
        choose(page)
        encode(page)
        finished(page)
        page.reload()
        page.get_by_role("radio", name="Picture and caption").wait_for()
        assert not dialog.is_visible()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_without_a_key_it_says_so(visit: Visit, codec: Codec) -> None:
    with serving(fake_gateway(codec, api_keys=f"me:{hashlib.sha256(b'x').hexdigest()}")) as url:
        page = visit(url)
        page.get_by_role("dialog", name="API key").wait_for()
        page.keyboard.press("Escape")
        assert "Unauthorized" in problem(page)


@pytest.mark.parametrize("how", ["paste", "drop", "choose"])
def test_photos_come_in_many_ways(visit: Visit, gateway: str, codec: Codec, how: str) -> None:
    page = visit(gateway)
    if how == "choose":
        upload(page, "mine.png", "image/png", photo())
    else:
        bring(page, how, photo(), "mine.png")
    page.get_by_text("mine.png · 120").wait_for()
    encode(page)
    finished(page)
    assert codec.encoded[0].payload == photo()
    assert page.locator("#save-pico").get_attribute("download") == "mine.pico"
    page.get_by_role("button", name="Another photo").click()
    assert page.get_by_text("Drop a photo here").is_visible()
    assert not page.get_by_role("region", name="Result").is_visible()


def test_everything_by_keyboard(visit: Visit, gateway: str) -> None:
    page = visit(gateway)

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(e => `${e.id} ${e.getAttribute('aria-label')} ${e.innerText}`)(document.activeElement)"
            )
            if name in focused:
                outline = page.evaluate("""(e => [e, e.labels?.[0], e.previousElementSibling, e.firstElementChild]
                    .some(each => each && parseFloat(getComputedStyle(each).outlineWidth) >= 2
                        && getComputedStyle(each).outlineStyle !== 'none'))(document.activeElement)""")
                assert outline, f"{name} has focus, which nobody sees"
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("Skip to the picture")
    tab_to("file")
    tab_to("a cup of coffee")
    page.keyboard.press("Enter")
    page.get_by_role("img", name="Your photo").wait_for()
    tab_to("encode")
    page.keyboard.press("Enter")
    finished(page)
    assert page.evaluate("document.activeElement.id") == "encode"
    for back in range(40):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "slider":
            break
        assert back < 39
    page.wait_for_timeout(50)
    slider = page.get_by_role("slider", name="Divide")
    keys = [("ArrowLeft", 49), ("PageDown", 39), ("Shift+ArrowRight", 49), ("ArrowUp", 50), ("End", 100)]
    for key, value in [*keys, ("ArrowRight", 100), ("Home", 0), ("PageUp", 10), ("Tab", 10)]:
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuenow") == str(value)
    assert slider.get_attribute("aria-valuetext") == "10 % Original, 90 % Picogram"
    assert page.locator("#compare").evaluate("e => e.style.getPropertyValue('--split')") == "10%"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(visit: Visit, gateway: str, codec: Codec, scheme: str) -> None:
    page = visit(gateway, 360, 740, color_scheme=scheme, has_touch=True, is_mobile=True)
    assert width_of(page) == 360
    upload(page, f"{'long' * 40}.png", "image/png", photo())
    page.get_by_role("img", name="Your photo").wait_for()
    page.get_by_role("radio", name="Picture and caption").check()
    page.get_by_role("textbox", name="Caption").fill("endless" * 40)
    encode(page)
    finished(page)
    page.locator("#hex summary").click()
    assert width_of(page) == 360
    for control in page.locator(
        "button:visible, a.button:visible, .compare, .bar, #focus, blockquote:visible"
    ).all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    page.get_by_role("button", name="QR code").tap()
    page.get_by_role("dialog", name="QR code").wait_for()
    assert width_of(page) == 360
    page.get_by_role("button", name="Close").tap()
    codec.error = ModelMissing("unbreakable" * 30)
    page.get_by_role("button", name="Encode again").tap()
    problem(page)
    assert width_of(page) == 360


def test_nothing_moves_for_those_who_want_that(visit: Visit, gateway: str) -> None:
    seconds = "e => parseFloat(getComputedStyle(e).transitionDuration)"
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = visit(gateway, reduced_motion=motion)
        choose(page)
        encode(page)
        finished(page)
        page.locator(".compare.glide").wait_for()
        assert (page.locator(".divide").evaluate(seconds) > 0.1) is moves
