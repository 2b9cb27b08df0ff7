# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs over HTTP, with queues in the process and in a job store: 202, state, result, events, cancellation, repetition."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from typing import Any

import httpx2
import pytest
from gateway_apps import Gate, check_problem, echo, image, make_app, pico, post_and_leave, running, words

from picogram.errors import JobCanceled
from picogram.jobs import Job, Outcome

ASYNC = {"prefer": "respond-async"}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(params=["memory", "redis"])
def queues(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the queues, which no other test shares."""
    if request.param == "memory":
        return {}
    url = request.getfixturevalue("valkey").url
    return {"redis_url": url, "queue_prefix": f"test-{uuid.uuid4().hex[:8]}"}


def key(name: str = "") -> dict[str, str]:
    """A header that tests do not share either."""
    return {"idempotency-key": name or uuid.uuid4().hex}


async def finished(client: httpx2.AsyncClient, job: str) -> dict[str, Any]:
    """The job, once it has ended."""
    async with asyncio.timeout(10):
        while True:
            view: dict[str, Any] = (await client.get(f"/v1/jobs/{job}")).json()
            if view["status"] in ("done", "failed", "canceled"):
                return view
            await asyncio.sleep(0.01)


async def events(client: httpx2.AsyncClient, path: str, **options: Any) -> list[tuple[str, str, Any]]:
    """(id, event, data) of a stream, to its end."""
    response = await client.get(path, **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in filter(None, response.text.split("\n\n")):
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def test_respond_async_answers_before_the_job_is_done(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, **queues)) as client:
        response = await client.post("/v1/encode?bytes=9", content=image(), headers=ASYNC)
        assert response.status_code == 202
        view = response.json()
        assert response.headers["location"] == view["links"]["self"] == f"/v1/jobs/{view['id']}"
        assert response.headers["preference-applied"] == "respond-async"
        assert response.headers["retry-after"] == "1"
        assert response.headers["x-picogram-job"] == view["id"]
        assert (view["kind"], view["step"], view["priority"]) == ("encode", "encoder", "normal")
        assert all(RFC3339.fullmatch(view[name]) for name in ("created", "updated", "deadline"))
        assert view["error"] is None
        await gate.busy.wait()
        shown = await client.get(view["links"]["self"])
        assert (shown.json()["status"], shown.json()["attempt"]) == ("running", 1)
        early = await client.get(view["links"]["result"])
        check_problem(early, 409, "job-not-finished")
        assert early.headers["retry-after"] == "1"
        gate.gone.set()
        ended = await finished(client, view["id"])
        assert (ended["status"], ended["progress"]) == ("done", 1.0)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/encode?bytes=900&profile=stc", image(), {}),
        ("/v1/decode", pico(), {"accept": "image/webp"}),
        ("/v1/inspect", pico(), {}),
        ("/v1/describe", image(), {}),
    ],
)
async def test_a_result_fetched_later_is_what_waiting_would_have_given(
    queues: dict[str, Any], path: str, body: bytes, headers: dict[str, str]
) -> None:
    async with running(make_app(**queues)) as client:
        waited = await client.post(path, content=body, headers=headers)
        accepted = await client.post(path, content=body, headers={**headers, **ASYNC})
        job = accepted.json()["id"]
        await finished(client, job)
        fetched = await client.get(f"/v1/jobs/{job}/result")
        again = await client.get(f"/v1/jobs/{job}/result")
    assert fetched.status_code == waited.status_code == 200
    assert fetched.content == waited.content == again.content
    own = ("x-request-id", "x-picogram-job", "server-timing")
    strip = [
        {k: v.replace(each.headers["x-picogram-job"], "ID") for k, v in each.headers.items() if k not in own}
        for each in (waited, fetched)
    ]
    assert strip[0] == strip[1]
    assert fetched.headers["x-picogram-job"] == job
    assert "run;dur=" in fetched.headers["server-timing"]


async def test_a_failed_job_says_why_in_its_view_and_as_its_result(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        accepted = await client.post("/v1/encode", content=image(b"budget-too-small"), headers=ASYNC)
        job = accepted.json()["id"]
        view = await finished(client, job)
        assert view["status"] == "failed"
        assert view["error"]["type"].endswith("/budget-too-small")
        assert (view["error"]["status"], view["error"]["detail"]) == (422, "no luck")
        result = await client.get(f"/v1/jobs/{job}/result")
        assert check_problem(result, 422, "budget-too-small")["detail"] == "no luck"
        assert result.headers["x-picogram-job"] == job


async def test_unexpected_errors_of_jobs_say_nothing(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        job = (await client.post("/v1/encode", content=image(b"bug"), headers=ASYNC)).json()["id"]
        view = await finished(client, job)
        result = await client.get(f"/v1/jobs/{job}/result")
        check_problem(result, 500, "internal")
        assert "secret" not in json.dumps(view) + result.text


async def test_wait_answers_with_the_result_if_it_is_there_in_time(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, **queues)) as client:
        late = await client.post("/v1/encode", content=image(), headers={"prefer": "respond-async, wait=0"})
        assert late.status_code == 202
        assert late.headers["preference-applied"] == "respond-async, wait=0"
        gate.gone.set()
        timely = await client.post("/v1/encode", content=image(), headers={"prefer": "wait=10"})
        assert timely.status_code == 200
        assert timely.headers["preference-applied"] == "wait=10"
        kept = await client.get(f"/v1/jobs/{timely.headers['x-picogram-job']}/result")
        assert kept.content == timely.content


async def test_wait_answers_with_the_job_if_it_takes_longer(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, **queues)) as client:
        response = await client.post("/v1/encode", content=image(), headers={"prefer": "wait=1"})
        assert response.status_code == 202
        assert response.json()["status"] == "running"
        gate.gone.set()
        assert (await finished(client, response.json()["id"]))["status"] == "done"


async def test_an_answer_that_was_waited_for_is_not_kept(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        response = await client.post("/v1/encode", content=image())
        job = response.headers["x-picogram-job"]
        async with asyncio.timeout(5):
            while (await client.get(f"/v1/jobs/{job}")).status_code != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        check_problem(await client.get(f"/v1/jobs/{job}/result"), 404, "job-unknown")


@pytest.mark.parametrize("job", ["0" * 32, "nonsense", "a:b*", "%00"])
async def test_unknown_jobs_are_not_found(queues: dict[str, Any], job: str) -> None:
    async with running(make_app(**queues)) as client:
        for path in ("", "/result", "/events"):
            check_problem(await client.get(f"/v1/jobs/{job}{path}"), 404, "job-unknown")
        check_problem(await client.delete(f"/v1/jobs/{job}"), 404, "job-unknown")


async def test_a_running_job_can_be_canceled_and_canceled_again(queues: dict[str, Any]) -> None:
    gate = Gate()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def patient(jobs: list[Job]) -> list[Outcome]:
        loop.call_soon_threadsafe(gate.busy.set)
        try:
            while True:
                jobs[0].control.check()
        except JobCanceled as error:
            loop.call_soon_threadsafe(stopped.set)
            return [error]

    async with running(make_app(patient, **queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        await gate.busy.wait()
        for _ in range(2):
            response = await client.delete(f"/v1/jobs/{job}")
            assert response.status_code == 202
            assert response.json()["status"] == "canceled"
        check_problem(await client.get(f"/v1/jobs/{job}/result"), 410, "job-canceled")
        await asyncio.wait_for(stopped.wait(), 5)


async def test_canceling_a_finished_job_changes_nothing(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        await finished(client, job)
        assert (await client.delete(f"/v1/jobs/{job}")).json()["status"] == "done"
        assert (await client.get(f"/v1/jobs/{job}/result")).status_code == 200


def telling(jobs: list[Job]) -> list[Outcome]:
    """Reports on the way."""
    for job in jobs:
        job.control.progress(0.25, note="begun")
        job.control.preview("image/webp", b"early")
        job.control.progress(0.75)
    return echo(jobs)


async def test_events_tell_the_story_of_a_job(queues: dict[str, Any]) -> None:
    async with running(make_app(telling, **queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        story = await events(client, f"/v1/jobs/{job}/events")
    assert [name for _, name, _ in story] == ["queued", "running", "progress", "preview", "progress", "done"]
    data = [data for _, _, data in story]
    assert (data[2]["fraction"], data[2]["note"], data[2]["step"]) == (0.25, "begun", "encoder")
    assert base64.b64decode(data[3]["data"]) == b"early"
    assert data[3]["media_type"] == "image/webp"
    assert all(isinstance(each["at"], float) for each in data)


@pytest.mark.parametrize("by", ["header", "query"])
async def test_events_go_on_where_the_reader_left_off(queues: dict[str, Any], by: str) -> None:
    async with running(make_app(telling, **queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        path = f"/v1/jobs/{job}/events"
        story = await events(client, path)
        for index, (event_id, _, _) in enumerate(story):
            told = {"headers": {"last-event-id": event_id}} if by == "header" else {}
            asked = path if by == "header" else f"{path}?last_event_id={event_id}"
            assert await events(client, asked, **told) == story[index + 1 :]
        check_problem(await client.get(f"{path}?last_event_id=%C2%B2"), 422, "usage")


async def test_events_come_while_the_job_runs_with_signs_of_life_between(queues: dict[str, Any]) -> None:
    gate = Gate(telling)
    async with running(make_app(gate, heartbeat_seconds=0.02, **queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        asyncio.get_running_loop().call_later(0.3, gate.gone.set)
        response = await client.get(f"/v1/jobs/{job}/events")
    text = response.text
    assert response.headers["cache-control"] == "no-store"
    assert text.count(": ping\n\n") >= 2
    assert text.index("event: queued") < text.index(": ping") < text.index("event: progress")


async def test_event_streams_end_when_the_gateway_does(queues: dict[str, Any]) -> None:
    gate = Gate()
    app = make_app(gate, **queues)
    async with running(app) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        await gate.busy.wait()
        watching = asyncio.create_task(events(client, f"/v1/jobs/{job}/events"))
        await asyncio.sleep(0.1)
        app.state.dispatcher.drain()
        story = await asyncio.wait_for(watching, 5)
        check_problem(await client.get("/readyz"), 503, "not-ready")
        gate.gone.set()
    assert [name for _, name, _ in story] == ["queued", "running"]


async def test_a_repetition_with_the_same_key_gets_the_same_job(queues: dict[str, Any]) -> None:
    gate = Gate()
    gate.gone.set()
    mine = key()
    async with running(make_app(gate, **queues)) as client:
        first = await client.post("/v1/encode?bytes=9", content=image(), headers=mine)
        second = await client.post("/v1/encode?bytes=9", content=image(), headers=mine)
        later = await client.post("/v1/encode?bytes=9", content=image(), headers={**mine, **ASYNC})
        assert later.status_code == 200
    jobs = {each.headers["x-picogram-job"] for each in (first, second, later)}
    assert len(jobs) == 1
    assert first.content == second.content == later.content
    assert len(gate.seen) == 1


async def test_repetitions_while_it_runs_share_the_work(queues: dict[str, Any]) -> None:
    gate = Gate()
    mine = key()
    async with running(make_app(gate, **queues)) as client:
        posts = [
            asyncio.create_task(client.post("/v1/encode", content=image(), headers=mine)) for _ in range(5)
        ]
        await gate.busy.wait()
        gate.gone.set()
        answers = await asyncio.gather(*posts)
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert gate.seen == [b"photo"]


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/encode?bytes=9", image(b"other"), {}),
        ("/v1/encode?bytes=10", image(), {}),
        ("/v1/describe", image(), {}),
    ],
)
async def test_another_request_with_the_same_key_is_refused(
    queues: dict[str, Any], path: str, body: bytes, headers: dict[str, str]
) -> None:
    mine = key()
    async with running(make_app(**queues)) as client:
        await client.post("/v1/encode?bytes=9", content=image(), headers=mine)
        response = await client.post(path, content=body, headers={**mine, **headers})
        check_problem(response, 422, "idempotency-conflict")


async def test_a_job_with_a_key_outlives_its_client(queues: dict[str, Any]) -> None:
    gate = Gate()
    mine = key()
    app = make_app(gate, **queues)
    async with running(app) as client:
        assert await post_and_leave(app, "/v1/encode", image(b"one"), mine) == 499
        await gate.busy.wait()
        gate.gone.set()
        assert (await client.post("/v1/encode", content=image(b"one"), headers=mine)).status_code == 200
    assert gate.seen == [b"one"]


async def test_a_job_without_a_key_does_not(queues: dict[str, Any]) -> None:
    gate = Gate()
    app = make_app(gate, **queues)
    async with running(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=image(b"one")))
        await gate.busy.wait()
        assert await post_and_leave(app, "/v1/encode", image(b"two")) == 499
        await asyncio.sleep(0.1)  # beside the answer, the cancellation is on its way
        gate.gone.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/encode", content=image(b"three"))).status_code == 200
    assert gate.seen == [b"one", b"three"]


async def test_high_priority_overtakes(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, max_batch=1, **queues)) as client:
        await client.post("/v1/encode", content=image(b"first"), headers=ASYNC)
        await gate.busy.wait()
        await client.post("/v1/encode", content=image(b"normal"), headers=ASYNC)
        urgent = {**ASYNC, "x-picogram-priority": "high"}
        response = await client.post("/v1/encode", content=image(b"urgent"), headers=urgent)
        assert response.json()["priority"] == "high"
        gate.gone.set()
        await client.post("/v1/encode", content=image(b"last"))
    assert gate.seen == [b"first", b"urgent", b"normal", b"last"]


async def test_a_full_queue_refuses_with_a_time_to_come_back(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, queue_depth=2, **queues)) as client:
        for _ in range(2):
            assert (await client.post("/v1/encode", content=image(), headers=ASYNC)).status_code == 202
        refused = await client.post("/v1/encode", content=image(), headers=ASYNC)
        check_problem(refused, 503, "queue-full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await client.post("/v1/describe", content=image())).status_code == 200
        gate.gone.set()


async def test_a_job_past_its_deadline_is_a_timeout(queues: dict[str, Any]) -> None:
    gate = Gate()
    async with running(make_app(gate, job_timeout_seconds=0.3, **queues)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ASYNC)).json()["id"]
        check_problem(await client.post("/v1/encode", content=image()), 504, "job-timeout")
        check_problem(await client.get(f"/v1/jobs/{job}/result"), 504, "job-timeout")
        assert (await client.get(f"/v1/jobs/{job}")).json()["error"]["status"] == 504
        gate.gone.set()


@pytest.fixture
def fleet(valkey: Any) -> dict[str, Any]:
    return {"redis_url": valkey.url, "queue_prefix": f"test-{uuid.uuid4().hex[:8]}"}


async def test_any_gateway_of_a_fleet_answers_for_a_job(fleet: dict[str, Any]) -> None:
    gate = Gate(words)
    async with running(make_app(lmm=gate, **fleet)) as one, running(make_app(lmm=gate, **fleet)) as two:
        job = (await one.post("/v1/describe", content=image(), headers=ASYNC)).json()["id"]
        await gate.busy.wait()
        assert (await two.get(f"/v1/jobs/{job}")).json()["status"] == "running"
        gate.gone.set()
        assert [name for _, name, _ in await events(two, f"/v1/jobs/{job}/events")][-1] == "done"
        assert (await two.get(f"/v1/jobs/{job}/result")).json()["objects"] == []
