import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import errors as kafka_errors

from agents.fence import Fence
from tests.fakes import idle, until

FOREVER_MS = 3_600_000


@dataclass
class Answer:
    error_code: int

    @property
    def topics(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """What a commit of two partitions is answered; the second one's error is the answer's."""
        return [("clicks", [(0, 0), (1, self.error_code)])]


class HeartbeatRequest:
    """Known by its name, as aiokafka's versions of it are."""


class OffsetCommitRequest:
    """Known by its name too."""


class SyncGroupRequest:
    """Asks what we own."""


class JoinGroupRequest:
    """Another request that a coordinator answers."""


class Coordinator:
    """A group coordinator that answers as it is told to."""

    def __init__(self, error: type[Exception] = kafka_errors.NoError) -> None:
        self.answer: Answer | Exception = Answer(error.errno)

    async def _send_req(self, request: Any) -> Answer:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Sender:
    """A producer's sender that writes down what it writes."""

    def __init__(self) -> None:
        self.written: list[tuple[int, str]] = []

    async def _send_produce_req(self, node_id: int, batches: str) -> None:
        self.written.append((node_id, batches))


def fence(*, session_timeout_ms=FOREVER_MS) -> tuple[Fence, list[str]]:
    deaths: list[str] = []
    return Fence(session_timeout_ms=session_timeout_ms, die=deaths.append), deaths


async def test_an_open_fence_lets_writes_pass():
    """
    A coordinator that has just answered has replaced nobody.
    """
    made, _ = fence()
    sender = Sender()
    made.guard_sends(sender)
    made.owns(anything=True)

    await sender._send_produce_req(1, "batches")

    assert sender.written == [(1, "batches")]


async def test_writes_wait_while_the_coordinator_is_silent():
    """
    A worker that was paused and wakes up would overwrite its successor (PROTOCOL, P7).
    """
    made, deaths = fence(session_timeout_ms=0)
    sender, coordinator = Sender(), Coordinator()
    made.guard_sends(sender)
    made.watch_coordinator(coordinator)
    made.owns(anything=True)
    writing = asyncio.create_task(sender._send_produce_req(1, "batches"))
    await idle()
    assert (made.is_open, sender.written, deaths) == (False, [], [])

    made.owns(anything=False)
    await until(writing.done)

    assert sender.written == [(1, "batches")]


@pytest.mark.parametrize("answer", [kafka_errors.NoError, kafka_errors.RebalanceInProgressError])
async def test_an_answer_opens_the_fence(answer):
    """
    While a group rebalances its members are still members.
    """
    made, deaths = fence(session_timeout_ms=300)
    coordinator = Coordinator(answer)
    made.watch_coordinator(coordinator)
    made.owns(anything=True)
    await until(lambda: not made.is_open)

    assert (await coordinator._send_req(HeartbeatRequest())).error_code == answer.errno

    assert (made.is_open, deaths) == (True, [])


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (JoinGroupRequest(), Answer(0)),
        (HeartbeatRequest(), Answer(kafka_errors.NotCoordinatorForGroupError.errno)),
        (HeartbeatRequest(), Answer(kafka_errors.GroupCoordinatorNotAvailableError.errno)),
    ],
)
async def test_what_is_no_answer_to_a_heartbeat_opens_nothing(request_, answer):
    """
    A broker that is no coordinator does not know who is a member; nor does it make anybody die.
    """
    made, deaths = fence(session_timeout_ms=10)
    coordinator = Coordinator()
    coordinator.answer = answer
    made.watch_coordinator(coordinator)
    made.owns(anything=True)
    await until(lambda: not made.is_open)

    assert await coordinator._send_req(request_) is answer

    assert (made.is_open, deaths) == (False, [])


async def test_a_heartbeat_that_fails_is_no_answer():
    """
    A dead coordinator must not kill healthy workers: they wait.
    """
    made, deaths = fence(session_timeout_ms=10)
    coordinator = Coordinator()
    coordinator.answer = kafka_errors.RequestTimedOutError()
    made.watch_coordinator(coordinator)
    made.owns(anything=True)
    await until(lambda: not made.is_open)

    with pytest.raises(kafka_errors.RequestTimedOutError):
        await coordinator._send_req(HeartbeatRequest())

    assert (made.is_open, deaths) == (False, [])


REFUSALS = {"IllegalGeneration": 22, "UnknownMemberId": 25, "FencedInstanceId": 82}


def death(what, refusal) -> str:
    named = " under our name, so give each its own FRESHET_INSTANCE" if refusal == "FencedInstanceId" else ""
    return f"the group coordinator refused a {what} ({refusal}): another worker owns our partitions{named}"


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("owns", [True, False])
async def test_a_refused_heartbeat_ends_an_owner(refusal, owns):
    """
    Its partitions have another owner by now; one that owns nothing just joins again.
    """
    made, deaths = fence()
    coordinator = Coordinator()
    coordinator.answer = Answer(REFUSALS[refusal])
    made.watch_coordinator(coordinator)
    made.owns(anything=owns)

    await coordinator._send_req(HeartbeatRequest())

    assert deaths == ([death("heartbeat", refusal)] if owns else [])


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_commit_ends_an_owner(refusal):
    """
    A worker whose heartbeats are not due yet heard of its expulsion by its commits, and went on writing.
    """
    made, deaths = fence()
    coordinator = Coordinator()
    coordinator.answer = Answer(REFUSALS[refusal])
    made.watch_coordinator(coordinator)
    made.owns(anything=True)

    await coordinator._send_req(OffsetCommitRequest())

    assert deaths == [death("commit", refusal)]


@pytest.mark.parametrize("owns", [True, False])
async def test_a_commit_that_a_rebalance_overtook_ends_nobody(owns):
    """
    It was sent in the generation before; we are members of the next one and own what it gave us.
    """
    made, deaths = fence()
    coordinator = Coordinator()
    coordinator.answer = Answer(REFUSALS["IllegalGeneration"])
    answer = coordinator._send_req
    overtaken = asyncio.Event()

    async def slow(request: Any) -> Answer:
        await overtaken.wait()
        return await answer(request)

    coordinator._send_req = slow
    made.watch_coordinator(coordinator)
    made.owns(anything=True)
    committing = asyncio.create_task(coordinator._send_req(OffsetCommitRequest()))
    await idle()
    made.owns(anything=False)
    if owns:
        made.owns(anything=True)
    overtaken.set()
    await committing

    assert deaths == []


async def test_a_commit_during_a_rebalance_ends_nobody():
    """
    The coordinator still knows us: it asks us to join again.
    """
    made, deaths = fence()
    coordinator = Coordinator(kafka_errors.RebalanceInProgressError)
    made.watch_coordinator(coordinator)
    made.owns(anything=True)

    await coordinator._send_req(OffsetCommitRequest())

    assert deaths == []


async def test_the_fence_is_not_in_force_while_nothing_is_owned():
    """
    A worker that joins has heard nothing yet and must be able to write what its start needs.
    """
    made, _ = fence(session_timeout_ms=0)
    assert made.is_open
    made.owns(anything=True)
    await until(lambda: not made.is_open)

    made.owns(anything=False)

    assert made.is_open


async def test_an_answer_that_was_heard_late_opens_nothing():
    """
    A worker stood still for longer than its session, right after the coordinator had answered it. It woke up, found the
    answer in its socket, and would have sent what it held, after its successor had begun.
    """
    now = [0.0]
    stands_still = asyncio.Event()
    guard = Fence(session_timeout_ms=10_000, die=[].append, monotonic=lambda: now[0])
    guard.owns(anything=True)

    class Late(Coordinator):
        async def _send_req(self, request: Any) -> Answer:
            await stands_still.wait()
            return await super()._send_req(request)

    coordinator = Late()
    guard.watch_coordinator(coordinator)
    heartbeat = asyncio.create_task(coordinator._send_req(HeartbeatRequest()))
    await idle()
    now[0] = 12.0
    stands_still.set()
    await heartbeat

    assert not guard.is_open


async def test_an_assignment_that_was_heard_late_opens_nothing():
    """
    A worker stood still while it was told what it owns. It woke up after its session, took the assignment out of its
    socket, and sent rows behind those of its successor. Found by simulation, in one of 70,000 schedules.
    """
    now = [0.0]
    guard = Fence(session_timeout_ms=10_000, die=[].append, monotonic=lambda: now[0])
    coordinator = Coordinator()
    guard.watch_coordinator(coordinator)
    await coordinator._send_req(SyncGroupRequest())
    now[0] = 12.0

    guard.owns(anything=True)

    assert not guard.is_open


async def test_an_assignment_counts_from_when_it_was_asked_for():
    """
    A join may take longer than a session; whoever has just been told what it owns is no stranger.
    """
    now = [0.0]
    guard = Fence(session_timeout_ms=10_000, die=[].append, monotonic=lambda: now[0])
    coordinator = Coordinator()
    guard.watch_coordinator(coordinator)
    now[0] = 30.0
    await coordinator._send_req(SyncGroupRequest())

    guard.owns(anything=True)

    assert guard.is_open


async def test_an_assignment_that_is_refused_opens_nothing():
    """
    The generation is over; whoever asks again gets another answer.
    """
    now = [0.0]
    guard = Fence(session_timeout_ms=10_000, die=[].append, monotonic=lambda: now[0])
    coordinator = Coordinator(kafka_errors.IllegalGenerationError)
    guard.watch_coordinator(coordinator)
    now[0] = 30.0
    await coordinator._send_req(SyncGroupRequest())

    guard.owns(anything=True)

    assert not guard.is_open
