# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One file over http(s): a URL and the digests it may have go in, a checked file in the cache comes out.

A download that breaks off goes on where it stopped, within a call and in the next one (RFC 9110, 14: Range).
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from picogram.errors import ModelDamaged, ModelMissing
from picogram.models.fetch import Digest, intact, progress_bar
from picogram.version import VERSION

_TIMEOUT_S = 60
_ATTEMPTS = 6
_PAUSE_S = 1.0
_BLOCK = 1 << 18
_TOO_MANY_REQUESTS, _RANGE_NOT_SATISFIABLE, _PARTIAL_CONTENT = 429, 416, 206
_NETWORK = (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def is_url(source: str) -> bool:
    """Whether ``--from`` names something on the network."""
    return source.lower().startswith(("http://", "https://"))


def download(url: str, wanted: Sequence[Digest], folder: Path, command: str, progress: bool) -> Path:
    """A file in ``folder`` that is what one of ``wanted`` says. The caller deletes it when it has been used.

    Raises ModelMissing if the server cannot be reached, refuses, or breaks off too often: what came so far is kept, and
    the next call goes on there. Raises ModelDamaged, and keeps nothing, if the file is another one. OSError if it
    cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
    sizes = [digest.size for digest in wanted]
    if _size(part) not in sizes:
        with progress_bar(_shown(url), max(sizes), progress) as show:
            _persist(url, part, sizes, command, show)
    if not any(intact(part, digest) for digest in wanted):
        part.unlink()
        raise ModelDamaged(
            f"{_shown(url)} does not match its hash: is it the right file? Then run `{command}` again"
        )
    return part


def _persist(url: str, part: Path, sizes: Sequence[int], command: str, show: Callable[[int], None]) -> None:
    """Ask again for the rest as long as more can come."""
    reason: Exception | None = None
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE_S * attempt)
        try:
            _go_on(url, part, sizes, show)
        except _NETWORK as error:
            reason = error
            if isinstance(error, HTTPError) and error.code < 500 and error.code != _TOO_MANY_REQUESTS:
                break
        else:
            return
    raise ModelMissing(
        f"{_shown(url)}: {reason}, {_size(part)} bytes so far: run the same `{command}` again to go on from there"
    ) from reason


def _go_on(url: str, part: Path, sizes: Sequence[int], show: Callable[[int], None]) -> None:
    """Ask once for what is still missing. Raises one of ``_NETWORK`` if it ends early, ModelDamaged if it cannot fit."""
    start = _size(part)
    headers = {"User-Agent": f"picogram/{VERSION}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)  # noqa: S310 (http or https: see is_url)
    except HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file there: not a beginning of it
            raise ConnectionError("the server cannot resume") from error
        raise
    with answer:
        if answer.status != _PARTIAL_CONTENT:
            start = 0
        length = answer.headers.get("Content-Length")
        if length is not None and start + int(length) not in sizes:
            part.unlink(missing_ok=True)
            expected = " or ".join(str(size) for size in sizes)
            raise ModelDamaged(
                f"{_shown(url)} has {start + int(length)} bytes, not {expected}: is it the right file?"
            )
        with part.open("ab" if start else "wb") as file:
            while start < max(sizes) and (block := answer.read1(_BLOCK)):
                file.write(block)
                start += len(block)
                show(start)
    if start not in sizes:
        raise ConnectionError("the connection broke off")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _shown(url: str) -> str:
    """Without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
