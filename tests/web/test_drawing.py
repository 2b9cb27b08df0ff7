# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The page while the decoder imagines, and what it shows of that: steps, seeds, the sketch before, objects and masks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from page_steps import choose, encode, finished, open_file, until
from serving import Codec

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.profiles.registry import PROFILES

Visit = Callable[..., Any]
LEFT, RIGHT = ["##......"] * 8, ["......##"] * 8
OBJECTS = [
    {"name": "dog <b>1</b>", "detail": "wet", "mask": LEFT},
    {"name": "ball", "detail": "", "mask": [row + row for row in RIGHT for _ in range(2)]},
]


def painted(page: Any) -> list[list[bool]]:
    """Which cells of the canvas over the picture have colour; none while it is hidden."""
    script = """canvas => {
        if (canvas.hidden) return [];
        const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        context.drawImage(canvas, 0, 0);
        const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
        return Array.from({length: canvas.height}, (_, y) =>
            Array.from({length: canvas.width}, (_, x) => data[4 * (y * canvas.width + x) + 3] > 0));
    }"""
    cells: list[list[bool]] = page.locator("#masks").evaluate(script)
    return cells


def test_every_profile_can_be_chosen_and_says_what_it_is(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    for name in PROFILES:
        choice = page.locator(f"input[name=profile][value={name}]")
        choice.check()
        assert page.locator("label", has=choice).locator("small").inner_text()
        assert page.get_by_role("textbox", name="Caption").is_visible() is (name != "base")
    page.locator("input[value=sedic]").check()
    encode(page)
    finished(page)
    assert codec.encoded[0].options["profile"] == "sedic"


def test_the_sketch_is_shown_while_the_decoder_imagines(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.drawing = threading.Event()
    page = visit(gateway)
    choose(page)
    encode(page)
    sketch = page.get_by_role("img", name="The sketch in the file")
    sketch.wait_for()
    page.get_by_text("Sketch · nothing imagined yet").wait_for()
    page.get_by_text("Drawing the picture: 50 %").wait_for()
    assert sketch.evaluate("image => image.decode().then(() => image.naturalWidth)") == 24
    assert sketch.evaluate("image => getComputedStyle(image).filter") == "none"
    codec.drawing.set()
    finished(page)
    assert not sketch.is_visible()
    assert "1 step" in page.locator("#facts").inner_text()
    assert page.get_by_text("Partly imagined.").is_visible()


def test_the_sketch_of_an_opened_file_is_shown_too(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.drawing = threading.Event()
    page = visit(gateway)
    open_file(page)
    page.get_by_role("img", name="The sketch in the file").wait_for()
    page.get_by_text("mine.pico · 90").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled.").wait_for()
    assert page.get_by_text("Drop a photo here").is_visible()
    until(lambda: codec.canceled == [job.id for job in codec.decoded])
    codec.drawing.set()
    open_file(page)
    finished(page)


@pytest.mark.parametrize(
    ("typed", "sent", "told"), [("", None, "1 step"), ("0", 0, "nothing"), ("7", 7, "7")]
)
def test_steps_reach_the_decoder_and_come_back(
    visit: Visit, gateway: str, codec: Codec, typed: str, sent: int | None, told: str
) -> None:
    page = visit(gateway)
    page.get_by_label("Steps of imagining").fill(typed)
    open_file(page)
    finished(page)
    assert (codec.decoded[0].options["steps"], codec.decoded[0].options["seed"]) == (sent, 0)
    assert told in page.locator("#facts").inner_text()


def test_steps_that_are_none_are_not_sent(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    field = page.get_by_label("Steps of imagining")
    for typed in ("-1", "51", "1.5"):
        field.fill(typed)
        encode(page)
        assert page.get_by_text("A whole number from 0 to 50").is_visible(), typed
        assert field.evaluate("field => field === document.activeElement")
    open_file(page)
    assert codec.encoded == codec.decoded == []


def test_imagining_again_takes_another_seed_and_the_same_file(
    visit: Visit, gateway: str, codec: Codec
) -> None:
    page = visit(gateway)
    choose(page)
    encode(page)
    finished(page)
    for seed in (1, 2):
        page.get_by_role("button", name="Imagine again").click()
        page.get_by_text("Done: imagined anew.").wait_for()
        assert codec.decoded[-1].options["seed"] == seed
        page.locator("#encode").wait_for()
    assert len({job.payload for job in codec.decoded}) == 1
    assert len(codec.encoded) == 1
    assert page.get_by_role("slider", name="Divide").is_visible()


def test_giving_up_imagining_again_brings_the_picture_back(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    encode(page)
    finished(page)
    codec.drawing = threading.Event()
    page.get_by_role("button", name="Imagine again").click()
    page.get_by_role("img", name="The sketch in the file").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled.").wait_for()
    page.get_by_role("img", name="The picture drawn from the file").wait_for()
    assert page.get_by_role("slider", name="Divide").is_visible()
    assert page.get_by_role("region", name="Result").is_visible()


def test_masks_lie_over_the_original_and_can_be_taken_off(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.objects = OBJECTS
    page = visit(gateway)
    choose(page)
    page.locator("input[value=misc]").check()
    encode(page)
    finished(page)
    assert page.locator("[data-part=objects]").is_visible()
    first = page.get_by_role("button", name="dog <b>1</b>")
    assert first.inner_text().split("\n") == ["dog <b>1</b>", "wet"]
    halves = [[True] * 4 + [False] * 2 + [True, True] + [False] * 6 + [True, True]] * 16
    assert painted(page) == halves
    covers = "e => JSON.stringify(e.getBoundingClientRect()) === JSON.stringify(e.parentElement.getBoundingClientRect())"
    assert page.locator("#masks").evaluate(covers)
    assert page.locator("#masks").evaluate("e => getComputedStyle(e).clipPath").startswith("inset(0")
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    assert painted(page)[0] == ([False] * 6 + [True, True]) * 2
    page.get_by_role("button", name="ball").click()
    assert painted(page) == []
    first.click()
    assert painted(page) == [[True, True] + [False] * 6] * 8
    page.get_by_role("button", name="Another photo").click()
    choose(page)
    assert painted(page) == []


def test_masks_of_an_opened_file_lie_over_its_picture(visit: Visit, gateway: str, codec: Codec) -> None:
    codec.objects = OBJECTS[:1]
    words = {"caption": b"c", "objects": b"o"}
    page = visit(gateway)
    open_file(page, serialise(Picogram(Header(Profile.MISC, 90, 60, 1), b"\x09latent", words)))
    finished(page)
    assert painted(page) == [[True, True] + [False] * 6] * 8
    assert page.locator("#masks").evaluate("e => getComputedStyle(e).clipPath") == "none"


def test_a_file_without_objects_has_no_list_of_them(visit: Visit, gateway: str) -> None:
    page = visit(gateway)
    choose(page)
    encode(page)
    finished(page)
    assert not page.get_by_text("Objects in the file").is_visible()
    assert painted(page) == []
