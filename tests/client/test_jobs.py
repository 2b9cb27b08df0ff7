# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs of the client against a scripted server: submitting, watching through broken streams, waiting, giving up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import httpx2
import pytest
from fake_server import (
    FILE,
    JOB,
    URL,
    Clock,
    FakeServer,
    clock,
    encoded,
    event,
    problem,
    server,
    stream,
    view,
)

from picogram import errors
from picogram.client import AsyncClient, BadAnswer, Client, ConnectionFailed, Event, ServerError

__all__ = ["clock", "server"]  # fixtures

JOB_PATH = f"/v1/jobs/{JOB}"
DROP = httpx2.ReadError("reset by peer")
FAILED = {
    "type": "https://picogram.dev/problems/budget-too-small",
    "title": "T",
    "status": 422,
    "detail": "no",
}


def submitted(client: Any, action: Any) -> Any:
    """``action(job)`` of a job that ``client`` submits."""
    if isinstance(client, Client):
        return action(client.submit_encode(b"photo", bytes=800))
    return submitted_async(client, action)


async def submitted_async(client: AsyncClient, action: Any) -> Any:
    result = action(await client.submit_encode(b"photo", bytes=800))
    return [each async for each in result] if hasattr(result, "__aiter__") else await result


def events(client: Any, **arguments: Any) -> Any:
    """What the events of a submitted job are."""
    return submitted(client, lambda job: job.events(**arguments))


def test_a_call_that_takes_long_goes_on_as_a_job(server: FakeServer, clock: Clock) -> None:
    server.replies = [view(), stream(event("1", "queued"), event("2", "done")), encoded()]
    assert server.run(lambda c: c.encode(b"photo")).data == FILE
    assert server.asked == ["POST /v1/encode", f"GET {JOB_PATH}/events", f"GET {JOB_PATH}/result"]
    assert clock.pauses == []


def test_a_watched_call_shows_every_event(server: FakeServer) -> None:
    parts = event("7-0", "progress", at=3.5, step="encoder", fraction=0.5)
    server.replies = [
        view(),
        stream(
            event("1", "queued")[:9],
            event("1", "queued")[9:] + b": heartbeat\n\nevent: novel\ndata: x\nid: 5\n\n" + parts[:30],
            parts[30:] + event("8", "done"),
        ),
        encoded(),
    ]
    seen: list[Event] = []
    server.run(lambda c: c.encode(b"photo", on_progress=seen.append))
    assert server.requests[0].headers["prefer"] == "respond-async"
    assert [each.name for each in seen] == ["queued", "progress", "done"]
    assert seen[1] == Event("7-0", "progress", 3.5, {"step": "encoder", "fraction": 0.5})


def test_listeners_may_be_coroutines() -> None:
    fake = FakeServer("async")
    fake.replies = [view(), stream(event("1", "done")), encoded()]
    seen: list[str] = []

    async def listen(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(event.name)

    fake.run(lambda c: c.encode(b"photo", on_progress=listen))
    assert seen == ["done"]


def test_a_job_is_submitted_without_waiting(server: FakeServer) -> None:
    server.replies = [view(), view("running")]
    state = server.run(lambda c: submitted(c, lambda job: job.status()))
    assert server.asked == ["POST /v1/encode", f"GET {JOB_PATH}"]
    assert server.requests[0].headers["prefer"] == "respond-async"
    assert (state.id, state.kind, state.status, state.step) == (JOB, "encode", "running", "encoder")
    assert (state.priority, state.attempt, state.progress, state.final) == ("high", 1, 0.25, False)
    assert state.updated_at - state.created_at == 1.5
    assert state.deadline - state.created_at == 120.0


def test_a_stream_that_breaks_off_goes_on_after_its_last_event(server: FakeServer, clock: Clock) -> None:
    server.replies = [
        view(),
        stream(event("1", "queued"), event("2", "running"), DROP),
        httpx2.ConnectError("gone"),
        view("running"),
        problem(503, "overloaded", retry_after="3"),
        view("running"),
        stream(event("3", "progress"), b"event: done\nda"),
        stream(event("4", "done")),
    ]
    seen = server.run(events)
    assert [each.id for each in seen] == ["1", "2", "3", "4"]
    streams = [r for r in server.requests if r.url.path.endswith("/events")]
    assert [r.headers.get("last-event-id") for r in streams] == [None, "2", "2", "2", "3"]
    assert clock.pauses == [0.5, 1, 3.5, 0.5]


def test_events_can_be_taken_up_where_somebody_left_off(server: FakeServer) -> None:
    server.replies = [view(), stream(event("4", "done"))]
    server.run(lambda c: events(c, after="3"))
    assert server.requests[1].headers["last-event-id"] == "3"


def test_a_job_that_ended_unheard_has_a_last_event_all_the_same(server: FakeServer, clock: Clock) -> None:
    server.replies = [view(), stream(event("1", "queued"), DROP), stream(), view("failed", FAILED)]
    seen = server.run(events)
    assert [each.name for each in seen] == ["queued", "failed"]
    assert seen[1].data == {"slug": "budget-too-small", "title": "Byte budget too small", "detail": "no"}
    assert seen[1].final


def test_a_server_that_is_gone_ends_the_watching(server: FakeServer, clock: Clock) -> None:
    server.replies = [view(), stream(event("1", "queued"), DROP), *[httpx2.ConnectError("gone")] * 4]
    with pytest.raises(ConnectionFailed, match="gone"):
        server.run(events, retries=2)
    assert len(clock.pauses) == 3


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (problem(404, "job-unknown"), errors.JobUnknown),
        (problem(401, "unauthorized"), ServerError),
        (httpx2.Response(204), BadAnswer),
        (httpx2.Response(200, headers={"content-type": "text/html"}), BadAnswer),
        (stream(b"event: done\nid: 1\ndata: [\n\n"), BadAnswer),
        (stream(b"event: done\nid: 1\ndata: {}\n\n"), BadAnswer),
        (stream(b"data: " + bytes(1024 * 1024), *[bytes(1024 * 1024)] * 8), BadAnswer),
    ],
)
def test_a_refused_or_senseless_stream_ends_the_watching(reply: httpx2.Response, error: type) -> None:
    for color in ("sync", "async"):
        fake = FakeServer(color)
        fake.replies = [view(), reply]
        with pytest.raises(error):
            fake.run(events)


def test_heartbeats_do_not_stretch_the_time_of_a_call(server: FakeServer, clock: Clock) -> None:
    beats = [piece for _ in range(50) for piece in (b": still here\n\n", lambda: clock.sleep(15))]
    server.replies = [view(), stream(*beats)]
    with pytest.raises(errors.JobTimeout, match="60 seconds"):
        server.run(lambda c: submitted(c, lambda job: job.result(timeout=60)))
    assert len(clock.pauses) == 4


def test_a_call_whose_time_is_up_gives_its_job_up(server: FakeServer, clock: Clock) -> None:
    silence: list[Any] = [b": still here\n\n", lambda: clock.sleep(31), b":\n\n"]
    server.replies = [view(), stream(*silence), view("canceled")]
    with pytest.raises(errors.JobTimeout):
        server.run(lambda c: c.encode(b"photo"), timeout=30)
    assert server.asked[-1] == f"DELETE {JOB_PATH}"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), errors.JobCanceled("enough")])
def test_a_listener_that_raises_gives_the_job_up(server: FakeServer, error: BaseException) -> None:
    def listen(event: Event) -> None:
        raise error

    server.replies = [view(), stream(event("1", "queued"), event("2", "done")), view("canceled")]
    with pytest.raises(type(error)):
        server.run(lambda c: c.encode(b"photo", on_progress=listen))
    assert server.asked[-1] == f"DELETE {JOB_PATH}"


async def test_a_canceled_task_gives_its_job_up() -> None:
    fake, reached = FakeServer("async"), asyncio.Event()

    def listen(event: Event) -> Any:
        reached.set()
        return asyncio.sleep(60)

    fake.replies = [view(), stream(event("1", "queued")), view("canceled")]
    transport = httpx2.MockTransport(fake._reply)
    async with AsyncClient(URL, transport=transport) as client, anyio.create_task_group() as group:

        async def call() -> None:
            await client.encode(b"photo", on_progress=listen)

        group.start_soon(call)
        await reached.wait()
        group.cancel_scope.cancel()
    assert fake.asked[-1] == f"DELETE {JOB_PATH}"


def test_waiting_tells_how_a_job_ended_and_its_result_raises_it(server: FakeServer) -> None:
    ended = [stream(event("1", "failed")), view("failed", FAILED)]
    server.replies = [view(), view("running"), *ended]
    state = server.run(lambda c: submitted(c, lambda job: job.wait()))
    assert (state.status, state.final) == ("failed", True)
    assert isinstance(state.error, errors.BudgetTooSmall)
    server.replies = [view(), stream(event("1", "failed")), problem(422, "budget-too-small", "no")]
    with pytest.raises(errors.BudgetTooSmall, match="no"):
        server.run(lambda c: submitted(c, lambda job: job.result()))


def test_waiting_for_a_finished_job_asks_once(server: FakeServer) -> None:
    server.replies = [view(), view("done")]
    assert server.run(lambda c: submitted(c, lambda job: job.wait())).status == "done"


def test_a_result_that_is_late_is_asked_for_again(server: FakeServer, clock: Clock) -> None:
    server.replies = [
        view(),
        stream(event("1", "done")),
        problem(409, "job-not-finished", retry_after="1"),
        encoded(),
    ]
    assert server.run(lambda c: submitted(c, lambda job: job.result())).data == FILE
    assert clock.pauses == [1.5]


def test_cancel(server: FakeServer) -> None:
    server.replies = [view(), view("canceled")]
    assert server.run(lambda c: submitted(c, lambda job: job.cancel())).status == "canceled"
    assert server.asked[-1] == f"DELETE {JOB_PATH}"


def test_a_job_can_be_found_again_by_its_id(server: FakeServer) -> None:
    server.replies = [view("done")]
    job = server.run(lambda c: c.job("../models?x"))
    assert server.requests[0].url.raw_path == b"/base/v1/jobs/..%2Fmodels%3Fx"
    assert job.id == JOB
    server.replies = [problem(404, "job-unknown")]
    with pytest.raises(errors.JobUnknown):
        server.run(lambda c: c.job("gone"))


def test_a_job_that_is_done_at_once_is_known_by_its_header(server: FakeServer) -> None:
    server.replies = [encoded(), view("done")]
    assert server.run(lambda c: submitted(c, lambda job: job.status())).id == JOB
    server.replies = [httpx2.Response(200, content=b"")]
    with pytest.raises(BadAnswer, match="without a job"):
        server.run(lambda c: c.submit_encode(b"photo"))


def test_previews_arrive_whole(server: FakeServer) -> None:
    data = 400_000 * "QUJD"
    server.replies = [
        view(),
        stream(event("1", "preview", media_type="image/webp", data=data), event("2", "done")),
    ]
    first, _ = server.run(events)
    assert json.dumps(first.data) == json.dumps({"media_type": "image/webp", "data": data})
