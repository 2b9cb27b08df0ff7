# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which modules a request over HTTP enters, from its route to the return of the last handler: how far one has to read.

    python -m benchmarks.walk [--json FILE]

Counted are the gateway's and workers' modules and those of the library that deal with requests, profiles and results
(UPPER). Below them lie modules that one need not open to follow a request: bitstream, latent, images, queue.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx2
import numpy as np
from PIL import Image

from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend

UPPER: Final = ("picogram_", "picogram.api", "picogram.pipeline", "picogram.profiles", "picogram.request")
UNRELATED: Final = ("picogram_gateway.telemetry", "picogram_gateway.guards", "picogram_gateway.app")
"""They surround every request alike."""


class Walk:
    """Modules of this project in the order in which they are first entered, between a route and a handler's return."""

    def __init__(self, route: str, handler: str) -> None:
        self.entered: dict[str, int] = {}
        self._route, self._handler = route, handler
        self._walking = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith("picogram"):
            return
        name = f"{module}.{frame.f_code.co_name}"
        if event == "call" and name == self._route and not self.entered:
            self._walking = True
        if self._walking and event == "call" and frame.f_code.co_name != "<module>":
            self.entered[module] = self.entered.get(module, 0) + 1
        if event == "return" and name == self._handler:
            self._walking = False

    def rooms(self) -> list[str]:
        """Those that one has to read."""
        return [name for name in self.entered if name.startswith(UPPER) and not name.startswith(UNRELATED)]


def followed(route: str, handler: str, act: Callable[[], object]) -> Walk:
    """What ``act`` enters, in all threads."""
    walk = Walk(route, handler)
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return walk


async def _asked(path: str, body: bytes, kind: str) -> bytes:
    app = create_app(GatewaySettings(), embedded_backend())
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app):
        while not app.state.dispatcher.warm:  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0.05)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://walk.invalid", timeout=120
        ) as http:
            answer = await http.post(path, content=body, headers={"Content-Type": kind})
            answer.raise_for_status()
            return answer.content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pixels = np.linspace(0, 255, 128 * 96 * 3).reshape(96, 128, 3).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    file = asyncio.run(
        _asked("/v1/encode?bytes=300", out.getvalue(), "image/png")
    )  # loads what is loaded once
    cases = {
        "encode": (
            "/v1/encode?bytes=300",
            out.getvalue(),
            "image/png",
            "picogram_encoder.encoder_handler.handler",
        ),
        "decode": (
            "/v1/decode",
            file,
            "application/vnd.picogram",
            "picogram_decoder.decoder_handler.__call__",
        ),
    }
    results = {}
    for name, (path, body, kind, handler) in cases.items():
        walk = followed(
            f"picogram_gateway.routes.{name}",
            handler,
            lambda: asyncio.run(_asked(path, body, kind)),  # noqa: B023
        )
        results[name] = walk.rooms()
        print(f"{name}: {len(results[name])} modules: {', '.join(results[name])}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
