# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What shapes a file and is not in it, on the page: a caption for the encoder, and what matters most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from page_steps import choose, encode, finished, open_file, until
from serving import Codec

Visit = Callable[..., Any]
CAPTION = "<b>A boat</b> & 100% r\u00f6d"


def test_the_page_says_what_the_encoder_listened_to(visit: Visit, gateway: str, codec: Codec) -> None:
    page = visit(gateway)
    choose(page)
    page.get_by_role("radio", name="Picture only, guided by words").check()
    page.get_by_role("textbox", name="Caption").fill(CAPTION)
    encode(page)
    finished(page)
    assert codec.encoded[0].options["caption"] == CAPTION
    assert page.get_by_role("heading", name="The encoder listened to").is_visible()
    assert page.locator("#heard-shown blockquote").inner_text() == CAPTION
    assert not page.locator("#caption-shown").is_visible()
    page.get_by_role("textbox", name="Caption").fill("")
    encode(page)
    until(lambda: page.locator("#heard-shown blockquote").inner_text() == "What the captioner sees.")
    page.locator("input[value=base]").check()
    encode(page)
    page.locator("#heard-shown").wait_for(state="hidden")
    open_file(page)
    finished(page)
    assert not page.locator("#heard-shown").is_visible()


def test_what_matters_most_goes_to_the_encoder_in_every_profile(
    visit: Visit, gateway: str, codec: Codec
) -> None:
    page = visit(gateway)
    choose(page)
    field = page.get_by_role("textbox", name="What matters most")
    field.fill("  the cat's eyes ")
    described = field.get_attribute("aria-describedby")
    assert "not in the file" in page.locator(f"#{described}").inner_text()
    encode(page)
    finished(page)
    page.get_by_role("radio", name="Picture and caption").check()
    field.press("Enter")
    until(lambda: len(codec.encoded) == 2)
    page.locator("#caption-shown").wait_for()
    assert [job.options["focus"] for job in codec.encoded] == ["the cat's eyes"] * 2
    assert [job.options["profile"] for job in codec.encoded] == ["base", "stc"]
    field.fill(" ")
    page.locator("input[value=base]").check()
    encode(page)
    until(lambda: len(codec.encoded) == 3)
    assert codec.encoded[2].options["focus"] is None
