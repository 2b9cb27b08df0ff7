# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A client of the HTTP server, which needs neither torch nor models: what goes in and comes out is as in the library.

source ── sources ──> Task ── flows (pure: what to send, when to wait, what to try again) ──> Encoded, Decoded, ...
                                │  ^
                          sync.py, asynchronous.py: httpx2 and sleeping, the only difference between the two

>>> with picogram.Client("http://127.0.0.1:8080") as client:
...     encoded = client.encode("photo.jpg", bytes=1200)
...     picture = client.decode(encoded.data).picture
"""

try:
    import httpx2 as _httpx2  # noqa: F401 - only to say what helps where it is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'the client needs httpx2: pip install "picogram-codec[client]"', name=error.name
    ) from error

from picogram.client.asynchronous import AsyncClient, AsyncRemoteJob
from picogram.client.failures import (
    BadAnswer,
    BodyTooLarge,
    ConnectionFailed,
    JobNotFinished,
    NotAcceptable,
    NotReady,
    RateLimited,
    ServerError,
    Unauthorized,
    UnsupportedMediaType,
)
from picogram.client.sync import Client, RemoteJob
from picogram.client.tasks import DecodeRequest, EncodeRequest
from picogram.jobs.state import Event, JobState
from picogram.results import Decoded, Encoded

__all__ = [
    "AsyncClient",
    "AsyncRemoteJob",
    "BadAnswer",
    "BodyTooLarge",
    "Client",
    "ConnectionFailed",
    "DecodeRequest",
    "Decoded",
    "EncodeRequest",
    "Encoded",
    "Event",
    "JobNotFinished",
    "JobState",
    "NotAcceptable",
    "NotReady",
    "RateLimited",
    "RemoteJob",
    "ServerError",
    "Unauthorized",
    "UnsupportedMediaType",
]
