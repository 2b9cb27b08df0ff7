# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Photographs for all tests, and a cache of models with something to pull into it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from brokers import BrokerFactory
from fake_model import make_wheel, stand_in
from pictures import resized
from PIL import Image
from skimage import data
from valkey_server import ValkeyServer, running_server

from picogram.jobs import Broker, MemoryBroker, open_broker
from picogram.jobs.queue_settings import QueueSettings


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Four photographs, 192 to 384 pixels a side."""
    return [
        resized(data.astronaut(), 256, 256),
        resized(data.chelsea(), 384, 256),
        resized(data.coffee(), 300, 200),
        resized(data.rocket(), 192, 320),
    ]


@pytest.fixture(scope="session")
def photo(photos: list[Image.Image]) -> Image.Image:
    return photos[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PICOGRAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PICOGRAM_METRICS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive that ``text`` is pulled from in these tests."""
    path = make_wheel(tmp_path / "wheels" / "picofake-1.0-py3-none-any.whl")
    stand_in(path, monkeypatch)
    return path


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server for all tests that do not stop it; each uses a key prefix of its own."""
    with running_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest_asyncio.fixture(params=["memory", "redis"])
async def make_broker(request: pytest.FixtureRequest) -> AsyncIterator[BrokerFactory]:
    """Makes brokers over the same jobs (Redis), or one each (memory)."""
    brokers: list[Broker] = []
    prefix = f"test-{uuid.uuid4().hex[:8]}"

    def memory(max_depth: int = 32, result_ttl_seconds: float = 600.0) -> Broker:
        brokers.append(MemoryBroker(max_depth, result_ttl_seconds))
        return brokers[-1]

    def redis(max_depth: int = 32, **settings: Any) -> Broker:
        url = request.getfixturevalue("valkey").url
        fields = {"redis_url": url, "queue_prefix": prefix, "queue_depth": max_depth, **settings}
        brokers.append(open_broker(QueueSettings(**fields)))
        return brokers[-1]

    makers: dict[str, BrokerFactory] = {"memory": memory, "redis": redis}
    yield makers[request.param]
    for broker in brokers:
        await broker.close()


@pytest_asyncio.fixture
async def broker(make_broker: BrokerFactory) -> Broker:
    return make_broker()
