# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What people do on the page, and waiting for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from picogram.bitstream import Header, Picogram, Profile, serialise

FILE = serialise(Picogram(Header(Profile.BASE, 90, 60, 1), b"\x09latent"))


def choose(page: Any, sample: str = "a cat") -> None:
    page.get_by_role("button", name=f"Sample photo: {sample}").click()
    page.get_by_role("img", name="Your photo").wait_for()


def encode(page: Any) -> None:
    page.get_by_role("button", name="Encode").click()


def finished(page: Any) -> None:
    page.get_by_text("Done: ").wait_for()
    assert page.get_by_role("region", name="Result").is_visible()


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def upload(page: Any, name: str, media_type: str, data: bytes) -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": media_type, "buffer": data})


def open_file(page: Any, data: bytes = FILE) -> None:
    upload(page, "mine.pico", "", data)
