# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What happens in a call, without doing any of it: each flow yields effects, and gets their results back.

    POST, Prefer: respond-async, wait=10 ──> 200: the result
                                         └─> 202: the job ── events until its last ── GET its result

Most jobs end within the first answer. A longer one never holds a request open for longer than proxies like, but for its
event stream, which may break off any number of times: it goes on after the last event that came. A flow fails by
raising; ConnectionFailed and BadAnswer are thrown into it by whoever performs its effects.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from picogram.client.failures import (
    Answer,
    BadAnswer,
    ConnectionFailed,
    ServerError,
    as_raised,
    failure_of,
)
from picogram.client.policy import Allowance, backoff
from picogram.client.reading_answers import JOB_HEADER, read_event, read_facts, read_state
from picogram.client.tasks import Call, Task, job_path
from picogram.errors import JobTimeout, PicogramError
from picogram.jobs.state import Event, JobState

T = TypeVar("T")

ACCEPTED: Final = 202
FIRST_WAIT: Final = 10
"""Seconds that the first answer may take: most jobs need less, and proxies allow more."""


@dataclass(frozen=True)
class Send:
    """Send a request and read the answer to its end; gives an Answer."""

    call: Call
    allowance: Allowance


@dataclass(frozen=True)
class Listen:
    """Open an event stream in place of any earlier one; gives None, or the Answer that refuses it."""

    call: Call
    allowance: Allowance


@dataclass(frozen=True)
class Hear:
    """Gives the stream's next ``httpx2.ServerSentEvent``, or None at its end."""


@dataclass(frozen=True)
class Sleep:
    """Let ``seconds`` pass."""

    seconds: float


@dataclass(frozen=True)
class Own:
    """From now on this job is ours only: nobody wants it if this flow is broken off."""

    job: str


@dataclass(frozen=True)
class Emit:
    """Show the caller an event."""

    event: Event


Effect: TypeAlias = Send | Listen | Hear | Sleep | Own | Emit
Flow: TypeAlias = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Done:
    """What a flow returned."""

    value: Any


def exchange(call: Call, allowance: Allowance) -> Flow[Answer]:
    """The answer, after as many tries as it takes and the policy allows. Raises ServerError, or the library's error."""
    tries = 0
    while True:
        failure: ServerError | None
        try:
            answer: Answer = yield Send(call, allowance)
            failure = failure_of(answer)
            if failure is None:
                return answer
        except ConnectionFailed as error:
            failure = error
        tries += 1
        pause = allowance.pause(failure, tries)
        if pause is None:
            raise as_raised(failure)
        yield Sleep(pause)


def perform(task: Task[T], allowance: Allowance, *, watched: bool = False) -> Flow[T]:
    """The result of a task's job. ``watched``: emit its events as well."""
    prefer = "respond-async" if watched else f"respond-async, wait={FIRST_WAIT}"
    answer = yield from exchange(task.call.preferring(prefer), allowance)
    # A second try may find the job done; whoever watches is to see what happened all the same.
    if answer.status == ACCEPTED or (watched and JOB_HEADER in answer.headers):
        job = accepted(answer)
        yield Own(job)
        try:
            answer = yield from collect(job, allowance)
        except JobTimeout:
            if not allowance.left:  # else it is the server's time that was up
                yield from cancel_quietly(job, allowance)
            raise
    else:
        answer = yield from described(answer, allowance)
    return task.read(answer)


def submit(task: Task[Any], allowance: Allowance) -> Flow[str]:
    """The id of a task's job."""
    answer = yield from exchange(task.call.preferring("respond-async"), allowance)
    return accepted(answer)


def collect(job: str, allowance: Allowance) -> Flow[Answer]:
    """A job's result, once it is there; emits the events until then. Raises the job's error, JobTimeout, ..."""
    yield from watch(job, allowance)
    answer = yield from exchange(Call("GET", job_path(job, "/result")), allowance)
    return (yield from described(answer, allowance))


def described(answer: Answer, allowance: Allowance) -> Flow[Answer]:
    """The answer with what its job says of it, words above all, where that is more than headers can hold.

    The result is there already: where its words cannot be had, it comes with a warning instead.
    """
    job = answer.headers.get(JOB_HEADER)
    if not job or "describedby" not in answer.headers.get("link", ""):
        return answer
    try:
        state = yield from exchange(Call("GET", job_path(job)), allowance)
    except PicogramError as error:
        return replace(answer, notes=(f"the server no longer tells the words: {error}",))
    facts = read_facts(state)
    notes = () if facts else ("the server no longer tells the words",)
    return replace(answer, facts=facts, notes=notes)


def wait(job: str, allowance: Allowance) -> Flow[JobState]:
    """The final state of a job."""
    state = yield from ask(job, allowance)
    if state.final:
        return state
    yield from watch(job, allowance)
    return (yield from ask(job, allowance))


def ask(job: str, allowance: Allowance) -> Flow[JobState]:
    """The state of a job."""
    return read_state((yield from exchange(Call("GET", job_path(job)), allowance)))


def cancel(job: str, allowance: Allowance) -> Flow[JobState]:
    """Give a job up; its state then."""
    return read_state((yield from exchange(Call("DELETE", job_path(job)), allowance)))


def cancel_quietly(job: str, allowance: Allowance) -> Flow[None]:
    """One try to spare the server some work, in a little time of its own."""
    try:
        yield Send(Call("DELETE", job_path(job)), allowance.policy.begin(LAST_WORDS))
    except PicogramError:
        return


LAST_WORDS: Final = 5.0
"""Seconds for giving up a job that nobody waits for any more."""


def watch(job: str, allowance: Allowance, after: str = "") -> Flow[None]:
    """Emits a job's events after the event ``after``, to the final one. Raises JobTimeout when the time is up first.

    A stream that breaks off is opened again after the last event that came. Where that brings nothing, the job's state
    decides whether to go on, so that only a server that is gone ends this, or one that no longer knows the job.
    """
    fruitless = 0
    while True:
        allowance.check()
        heard, failure = yield from _listen(job, allowance, after)
        if heard is not None:
            fruitless, after = 0, heard.id or after
            if heard.final:
                return
        fruitless += 1
        if fruitless > 1:
            state = yield from ask(job, allowance)
            if state.final:
                yield Emit(_final_event(state, after))
                return
        pause = backoff(fruitless, failure.retry_after if failure else None)
        yield Sleep(min(pause, allowance.left))


def _listen(job: str, allowance: Allowance, after: str) -> Flow[tuple[Event | None, ServerError | None]]:
    """Emits what one stream brings; its last event, and why it broke off."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    heard: Event | None = None
    try:
        refusal: Answer | None = yield Listen(
            Call("GET", job_path(job, "/events"), headers=headers), allowance
        )
        if refusal is not None:
            failure = failure_of(refusal) or BadAnswer("the server has no events", status=refusal.status)
            if allowance.pause(failure, 1) is None:
                raise as_raised(failure)
            return None, failure
        while (message := (yield Hear())) is not None:
            event = read_event(message)
            if event is None:
                continue
            heard = event
            yield Emit(event)
            if event.final:
                break
    except ConnectionFailed as failure:
        if not failure.transient:
            raise
        return heard, failure
    return heard, None


def _final_event(state: JobState, after: str) -> Event:
    """The final event of a job whose own could not be heard."""
    error = state.error
    data = {"slug": error.slug, "title": error.title, "detail": str(error)} if error else {}
    return Event(after, state.status, state.updated_at, data)


def accepted(answer: Answer) -> str:
    """The id of the job that an answer speaks of. Raises BadAnswer without one."""
    if answer.status == ACCEPTED:
        return read_state(answer).id
    if job := answer.headers.get(JOB_HEADER):
        return job
    raise BadAnswer("the server answered without a job", status=answer.status)
