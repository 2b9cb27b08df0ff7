# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The client for asyncio: as ``picogram.client.sync``, with ``await``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import anyio
import httpx2
from PIL import Image

from picogram.api import ImageSource, Inspection
from picogram.client import flows, reading_answers, tasks, wire
from picogram.client.failures import Answer
from picogram.client.flows import Done, Flow
from picogram.client.policy import Allowance, Policy
from picogram.client.reading_answers import reader_of
from picogram.client.tasks import Call, DecodeRequest, EncodeRequest, Task
from picogram.errors import PicogramError
from picogram.jobs.job import Priority
from picogram.jobs.state import Event, JobState
from picogram.results import Decoded, Encoded
from picogram.semantics.description import Description

T = TypeVar("T")
OnProgress = Callable[[Event], object]
OnPreview = Callable[[Image.Image], object]
"""Both may be coroutine functions, which are awaited."""


class AsyncClient:
    """A server's encoder, decoder and captioner; any number of calls at once. See ``Client`` for arguments and errors."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = Policy.timeout,
        retries: int = Policy.retries,
        max_answer_bytes: int = Policy.max_answer_bytes,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = wire.checked_url(url)
        self._policy = Policy(retries, timeout, max_answer_bytes)
        self._http = httpx2.AsyncClient(headers=wire.client_headers(api_key), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Jobs that were submitted go on."""
        await self._http.aclose()

    async def encode(
        self, source: ImageSource, *, on_progress: OnProgress | None = None, **options: Unpack[EncodeRequest]
    ) -> Encoded:
        """``Client.encode``."""
        return await self._perform(partial(tasks.encode_task, source, options), on_progress)

    async def decode(
        self,
        data: bytes,
        media_type: str = "image/png",
        *,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        **options: Unpack[DecodeRequest],
    ) -> Decoded:
        """``Client.decode``."""
        heard_by = reading_answers.heard_by(on_progress, on_preview)
        return await self._perform(partial(tasks.decode_task, data, media_type, options), heard_by)

    async def inspect(self, data: bytes) -> Inspection:
        """``Client.inspect``."""
        return await self._perform(partial(tasks.inspect_task, data))

    async def describe(
        self,
        source: ImageSource,
        *,
        mask_side: int = 8,
        priority: Priority | None = None,
        on_progress: OnProgress | None = None,
    ) -> Description:
        """``Client.describe``."""
        return await self._perform(partial(tasks.describe_task, source, mask_side, priority), on_progress)

    async def models(self) -> dict[str, Any]:
        """``Client.models``."""
        return (await self._run(flows.exchange(Call("GET", "/v1/models"), self._policy.begin()))).json()

    async def ready(self) -> bool:
        """``Client.ready``."""
        once = Policy(retries=0, timeout=wire.CONNECT_SECONDS)
        try:
            await self._run(flows.exchange(Call("GET", "/readyz"), once.begin()))
        except PicogramError:
            return False
        return True

    async def submit_encode(
        self, source: ImageSource, **options: Unpack[EncodeRequest]
    ) -> AsyncRemoteJob[Encoded]:
        """``Client.submit_encode``."""
        return await self._submit(partial(tasks.encode_task, source, options))

    async def submit_decode(
        self, data: bytes, media_type: str = "image/png", **options: Unpack[DecodeRequest]
    ) -> AsyncRemoteJob[Decoded]:
        """``Client.submit_decode``."""
        return await self._submit(partial(tasks.decode_task, data, media_type, options))

    async def job(self, job_id: str) -> AsyncRemoteJob[Any]:
        """``Client.job``."""
        state = await self._run(flows.ask(job_id, self._policy.begin()))
        return AsyncRemoteJob(state.id, self, reader_of(state.kind))

    # Making a task may read a file and code a PNG, which would hold up the event loop.

    async def _submit(self, make: Callable[[], Task[T]]) -> AsyncRemoteJob[T]:
        task = await anyio.to_thread.run_sync(make)
        return AsyncRemoteJob(await self._run(flows.submit(task, self._policy.begin())), self, task.read)

    async def _perform(self, make: Callable[[], Task[T]], on_progress: OnProgress | None = None) -> T:
        task = await anyio.to_thread.run_sync(make)
        flow = flows.perform(task, self._policy.begin(), watched=on_progress is not None)
        return await self._run(flow, on_progress)

    async def _run(self, flow: Flow[T], on_event: OnProgress | None = None) -> T:
        async with _AsyncFlowRunner(self._http, self._url, self._policy) as runner:
            try:
                while not isinstance(step := await runner.step(flow), Done):
                    heard = on_event(step) if on_event is not None else None
                    if isinstance(heard, Awaitable):
                        await heard
            except BaseException:  # canceled, or the caller's own: nobody will ask for the job again
                await runner.abandon()
                raise
        value: T = step.value
        return value

    async def _iterate(self, flow: Flow[None]) -> AsyncIterator[Event]:
        async with _AsyncFlowRunner(self._http, self._url, self._policy) as runner:
            while not isinstance(step := await runner.step(flow), Done):
                yield step


@dataclass(frozen=True)
class AsyncRemoteJob(Generic[T]):
    """A job on the server; see ``RemoteJob``."""

    id: str
    _client: AsyncClient = field(repr=False)
    _read: Callable[[Answer], T] = field(repr=False)

    async def status(self) -> JobState:
        """``RemoteJob.status``."""
        return await self._client._run(flows.ask(self.id, self._begin()))

    def events(self, after: str = "", timeout: float | None = None) -> AsyncIterator[Event]:
        """``RemoteJob.events``, for ``async for``."""
        return self._client._iterate(flows.watch(self.id, self._begin(timeout), after))

    async def wait(self, timeout: float | None = None) -> JobState:  # noqa: ASYNC109 - as RemoteJob
        """``RemoteJob.wait``."""
        return await self._client._run(flows.wait(self.id, self._begin(timeout)))

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 - as RemoteJob
        """``RemoteJob.result``."""
        return self._read(await self._client._run(flows.collect(self.id, self._begin(timeout))))

    async def cancel(self) -> JobState:
        """``RemoteJob.cancel``."""
        return await self._client._run(flows.cancel(self.id, self._begin()))

    def _begin(self, timeout: float | None = None) -> Allowance:
        return self._client._policy.begin(timeout)


class _AsyncFlowRunner:
    """Carries out the effects of one flow, and holds its event stream."""

    def __init__(self, http: httpx2.AsyncClient, base: str, policy: Policy) -> None:
        self._http, self._base, self._policy = http, base, policy
        self._stream: httpx2.Response | None = None
        self._heard: AsyncIterator[httpx2.ServerSentEvent] | None = None
        self._job = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hang_up()

    async def step(self, flow: Flow[T]) -> Event | Done:
        """The next event, or the end."""
        resume: Callable[[], flows.Effect] = partial(next, flow)
        while True:
            try:
                effect = resume()
            except StopIteration as stop:
                return Done(stop.value)
            except PicogramError:
                self._job = ""  # the flow's own end
                raise
            if isinstance(effect, flows.Emit):
                return effect.event
            try:
                resume = partial(flow.send, await self._perform(effect))
            except PicogramError as error:
                resume = partial(flow.throw, error)

    async def abandon(self) -> None:
        """Give up the job that is this flow's own; also where this task is being canceled."""
        if self._job:
            with anyio.CancelScope(shield=True):
                await self.step(flows.cancel_quietly(self._job, self._policy.begin()))

    async def _perform(self, effect: flows.Effect) -> object:
        match effect:
            case flows.Send(call, allowance):
                return await self._send(call, allowance)
            case flows.Listen(call, allowance):
                return await self._listen(call, allowance)
            case flows.Hear():
                with wire.translated():
                    return None if self._heard is None else await anext(self._heard, None)
            case flows.Sleep(seconds):
                await anyio.sleep(seconds)
            case flows.Own(job):
                self._job = job
        return None

    async def _send(self, call: Call, allowance: Allowance) -> Answer:
        request = wire.built(self._http, self._base, call, allowance)
        with wire.translated():
            return await _read(await self._http.send(request, stream=True), allowance)

    async def _listen(self, call: Call, allowance: Allowance) -> Answer | None:
        await self._hang_up()
        request = wire.built(self._http, self._base, call, allowance)
        with wire.translated():
            response = await self._http.send(request, stream=True)
            if wire.refused(response):
                return await _read(response, allowance)
            assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - an asynchronous client's
            response.stream = _AsyncTimedStream(response.stream, allowance)
            self._stream = response
            self._heard = aiter(httpx2.EventSource(response, wire.MAX_EVENT_BYTES))
        return None

    async def _hang_up(self) -> None:
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            self._stream = self._heard = None


class _AsyncTimedStream(httpx2.AsyncByteStream):
    """A stream that ends with JobTimeout when the time is up, although heartbeats keep it from being silent."""

    def __init__(self, stream: httpx2.AsyncByteStream, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._allowance.check()
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _read(response: httpx2.Response, allowance: Allowance) -> Answer:
    reader = wire.AnswerReader(response, allowance)
    try:
        async for chunk in response.aiter_bytes():
            reader.add(chunk)
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()
    return reader.answer()
