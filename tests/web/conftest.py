# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a window. Whatever a test does, the page must talk to its own server only and log no error."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving import Codec, fake_gateway, serving

Visit = Callable[..., Any]
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Chromium logs an error for every answer of 400 and above; tests that provoke those expect them.
EXPECTED = "Failed to load resource"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Ends with the module, for Playwright's event loop would be in the way of asynchronous tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    """``visit(url, width=1280, **context_options)`` opens the page in a profile of its own."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_page(url: str, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on("console", lambda message: _note(message, complaints))
        page.on("request", lambda request: _check(request.url, url, complaints))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def codec() -> Codec:
    return Codec()


@pytest.fixture
def gateway(codec: Codec) -> Iterator[str]:
    """The address of a gateway whose workers are ``codec``."""
    with serving(fake_gateway(codec)) as url:
        yield url


def _note(message: Any, complaints: list[str]) -> None:
    if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
        complaints.append(f"{message.type}: {message.text}")


def _check(address: str, home: str, complaints: list[str]) -> None:
    if not address.startswith((f"{home}/", "blob:", "data:")):
        complaints.append(f"a request elsewhere: {address}")
