# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The client for ordinary code: every method returns when its result is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

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


class Client:
    """A server's encoder, decoder and captioner. Safe to share between threads.

    ``timeout``: seconds that one call may take in all, with waiting and further tries; then JobTimeout is raised, and the
    job given up. ``retries``: further tries of one request in a row when the connection fails, the server is busy (429,
    503) or a proxy finds none (502, 504). ``max_answer_bytes``: of one answer. ``transport`` is httpx2's, for tests and
    special networks.

    Methods raise what the library raises for the same input, ServerError for everything else, and UsageError for a
    URL or key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = Policy.timeout,
        retries: int = Policy.retries,
        max_answer_bytes: int = Policy.max_answer_bytes,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._url = wire.checked_url(url)
        self._policy = Policy(retries, timeout, max_answer_bytes)
        self._http = httpx2.Client(headers=wire.client_headers(api_key), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Jobs that were submitted go on."""
        self._http.close()

    def encode(
        self, source: ImageSource, *, on_progress: OnProgress | None = None, **options: Unpack[EncodeRequest]
    ) -> Encoded:
        """Code an image, from a path, bytes, a file, a PIL image or an array. ``options``: see EncodeRequest.

        ``on_progress`` gets every event of the job. What it raises ends the call, and the job is given up.
        """
        return self._perform(tasks.encode_task(source, options), on_progress)

    def decode(
        self,
        data: bytes,
        media_type: str = "image/png",
        *,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        **options: Unpack[DecodeRequest],
    ) -> Decoded:
        """The picture of a ``.pico`` file, as a file of ``media_type``: image/png, webp, avif or jpeg.

        ``options``: see DecodeRequest. ``on_preview`` gets the base picture, small, before anything is imagined;
        ``on_progress`` the other events.
        """
        heard_by = reading_answers.heard_by(on_progress, on_preview)
        return self._perform(tasks.decode_task(data, media_type, options), heard_by)

    def inspect(self, data: bytes) -> Inspection:
        """What a ``.pico`` file says of itself and where its bytes went; no picture is drawn."""
        return self._perform(tasks.inspect_task(data))

    def describe(
        self,
        source: ImageSource,
        *,
        mask_side: int = 8,
        priority: Priority | None = None,
        on_progress: OnProgress | None = None,
    ) -> Description:
        """What the captioner sees in an image. ``mask_side``: of the objects' masks, 8 (as "misc") or 16 ("sedic")."""
        return self._perform(tasks.describe_task(source, mask_side, priority), on_progress)

    def models(self) -> dict[str, Any]:
        """Profiles, models and limits of the server."""
        return self._run(flows.exchange(Call("GET", "/v1/models"), self._policy.begin())).json()

    def ready(self) -> bool:
        """Whether the server answers and takes requests; asks once."""
        once = Policy(retries=0, timeout=wire.CONNECT_SECONDS)
        try:
            self._run(flows.exchange(Call("GET", "/readyz"), once.begin()))
        except PicogramError:
            return False
        return True

    def submit_encode(self, source: ImageSource, **options: Unpack[EncodeRequest]) -> RemoteJob[Encoded]:
        """Start what ``encode`` does, and go on."""
        return self._submit(tasks.encode_task(source, options))

    def submit_decode(
        self, data: bytes, media_type: str = "image/png", **options: Unpack[DecodeRequest]
    ) -> RemoteJob[Decoded]:
        """Start what ``decode`` does, and go on."""
        return self._submit(tasks.decode_task(data, media_type, options))

    def job(self, job_id: str) -> RemoteJob[Any]:
        """A job that was submitted earlier, perhaps by another process with the same API key. Raises JobUnknown."""
        state = self._run(flows.ask(job_id, self._policy.begin()))
        return RemoteJob(state.id, self, reader_of(state.kind))

    def _submit(self, task: Task[T]) -> RemoteJob[T]:
        return RemoteJob(self._run(flows.submit(task, self._policy.begin())), self, task.read)

    def _perform(self, task: Task[T], on_progress: OnProgress | None = None) -> T:
        flow = flows.perform(task, self._policy.begin(), watched=on_progress is not None)
        return self._run(flow, on_progress)

    def _run(self, flow: Flow[T], on_event: OnProgress | None = None) -> T:
        with _FlowRunner(self._http, self._url, self._policy) as runner:
            try:
                while not isinstance(step := runner.step(flow), Done):
                    if on_event is not None:
                        on_event(step)
            except BaseException:  # Ctrl-C, or the caller's own: nobody will ask for the job again
                runner.abandon()
                raise
        value: T = step.value
        return value

    def _iterate(self, flow: Flow[None]) -> Iterator[Event]:
        with _FlowRunner(self._http, self._url, self._policy) as runner:
            while not isinstance(step := runner.step(flow), Done):
                yield step


@dataclass(frozen=True)
class RemoteJob(Generic[T]):
    """A job on the server. Its result stays there for a while (10 minutes, unless the server says otherwise)."""

    id: str
    _client: Client = field(repr=False)
    _read: Callable[[Answer], T] = field(repr=False)

    def status(self) -> JobState:
        """Where it is now."""
        return self._client._run(flows.ask(self.id, self._begin()))

    def events(self, after: str = "", timeout: float | None = None) -> Iterator[Event]:
        """What happened since the event ``after`` (empty: since the beginning), and what happens, to the final one."""
        return self._client._iterate(flows.watch(self.id, self._begin(timeout), after))

    def wait(self, timeout: float | None = None) -> JobState:
        """Its final state. Raises JobTimeout after ``timeout`` seconds (None: the client's); the job goes on."""
        return self._client._run(flows.wait(self.id, self._begin(timeout)))

    def result(self, timeout: float | None = None) -> T:
        """Its result, waited for as in ``wait``. Raises the job's error."""
        return self._read(self._client._run(flows.collect(self.id, self._begin(timeout))))

    def cancel(self) -> JobState:
        """Give it up; nothing happens to one that is finished."""
        return self._client._run(flows.cancel(self.id, self._begin()))

    def _begin(self, timeout: float | None = None) -> Allowance:
        return self._client._policy.begin(timeout)


class _FlowRunner:
    """Carries out the effects of one flow, and holds its event stream."""

    def __init__(self, http: httpx2.Client, base: str, policy: Policy) -> None:
        self._http, self._base, self._policy = http, base, policy
        self._stream: httpx2.Response | None = None
        self._heard: Iterator[httpx2.ServerSentEvent] = iter(())
        self._job = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def step(self, flow: Flow[T]) -> Event | Done:
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
                resume = partial(flow.send, self._perform(effect))
            except PicogramError as error:
                resume = partial(flow.throw, error)

    def abandon(self) -> None:
        """Give up the job that is this flow's own."""
        if self._job:
            self.step(flows.cancel_quietly(self._job, self._policy.begin()))

    def _perform(self, effect: flows.Effect) -> object:
        match effect:
            case flows.Send(call, allowance):
                return self._send(call, allowance)
            case flows.Listen(call, allowance):
                return self._listen(call, allowance)
            case flows.Hear():
                with wire.translated():
                    return next(self._heard, None)
            case flows.Sleep(seconds):
                time.sleep(seconds)
            case flows.Own(job):
                self._job = job
        return None

    def _send(self, call: Call, allowance: Allowance) -> Answer:
        request = wire.built(self._http, self._base, call, allowance)
        with wire.translated():
            return _read(self._http.send(request, stream=True), allowance)

    def _listen(self, call: Call, allowance: Allowance) -> Answer | None:
        self._hang_up()
        request = wire.built(self._http, self._base, call, allowance)
        with wire.translated():
            response = self._http.send(request, stream=True)
            if wire.refused(response):
                return _read(response, allowance)
            assert isinstance(response.stream, httpx2.SyncByteStream)  # noqa: S101 - a synchronous client's
            response.stream = _TimedStream(response.stream, allowance)
            self._stream = response
            self._heard = iter(httpx2.EventSource(response, wire.MAX_EVENT_BYTES))
        return None

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _TimedStream(httpx2.SyncByteStream):
    """A stream that ends with JobTimeout when the time is up, although heartbeats keep it from being silent."""

    def __init__(self, stream: httpx2.SyncByteStream, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._allowance.check()
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _read(response: httpx2.Response, allowance: Allowance) -> Answer:
    reader = wire.AnswerReader(response, allowance)
    try:
        for chunk in response.iter_bytes():
            reader.add(chunk)
    finally:
        response.close()
    return reader.answer()
