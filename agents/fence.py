"""The fence: a worker that may have been replaced writes nothing (PROTOCOL, P7).

While the last heartbeat that the group coordinator answered, or the request for what we own, was sent more than 0.7 x
the session timeout ago, another worker may already own our partitions, so produce requests wait. A heartbeat or a
commit that the coordinator refuses means that it does: the process ends at once. Age alone never ends it: no heartbeat
is sent during a join, and none is answered by a dead coordinator.

A commit may also be refused because it was sent just before a rebalance that we take part in and answered after it.
So only an answer counts that belongs to the ownership under which its request was sent: partitions were given away or
taken over in between in every such case. "Rebalance in progress" is no refusal, the coordinator still knows us.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiokafka import errors as kafka_errors

_FRESH_SHARE = 0.7
_CHECK_S = 0.02
_FENCED = 82
_REFUSALS = {22: "IllegalGeneration", 25: "UnknownMemberId", _FENCED: "FencedInstanceId"}
"""By error code, because aiokafka has no class for the last one: another process joined under our static name."""


class Fence:
    """Knows when the coordinator last answered, and lets produce requests pass or wait."""

    def __init__(
        self,
        *,
        session_timeout_ms: int,
        die: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh_s = session_timeout_ms / 1000 * _FRESH_SHARE
        self._die = die
        self._monotonic = monotonic
        self._answered_at = self._assigned_at = self._monotonic()
        self._owns = False
        self._era = 0

    def owns(self, *, anything: bool) -> None:
        """Note whether any partition is owned; the fence is not in force while nothing is."""
        self._owns = anything
        self._era += 1
        # Not from now on: a process that stood still finds an old assignment in its socket.
        self._answered_at = self._assigned_at

    @property
    def is_open(self) -> bool:
        """Whether a produce request may be written now."""
        return not self._owns or self._monotonic() - self._answered_at <= self._fresh_s

    async def wait_open(self) -> None:
        """Wait until a produce request may be written; either the coordinator answers again or the process ends."""
        while not self.is_open:  # noqa: ASYNC110  # time opens and closes it, nobody could set an event
            await asyncio.sleep(_CHECK_S)

    def watch_coordinator(self, coordinator: Any) -> None:
        """Observe what an aiokafka group coordinator answers to heartbeats, commits and the question what we own."""
        send = coordinator._send_req  # noqa: SLF001  # aiokafka has no hook; held by tests/contract/test_transport.py

        async def observed(request: Any) -> Any:
            era, asked_at = self._era, self._monotonic()
            answer = await send(request)
            name = type(request).__name__
            if name.startswith("Heartbeat"):
                self._refused({answer.error_code}, "heartbeat", era)
                self._heard(kafka_errors.for_code(answer.error_code), asked_at)
            elif name.startswith("SyncGroup") and answer.error_code == kafka_errors.NoError.errno:
                self._assigned_at = max(self._assigned_at, asked_at)
            elif name.startswith("OffsetCommit"):
                codes = {code for _, partitions in answer.topics for _, code in partitions}
                self._refused(codes, "commit", era)
            return answer

        coordinator._send_req = observed  # noqa: SLF001  # see above

    def guard_sends(self, sender: Any) -> None:
        """Make every produce request of an aiokafka sender wait at the fence, where it is written."""
        send = sender._send_produce_req  # noqa: SLF001  # see watch_coordinator

        async def fenced(node_id: Any, batches: Any) -> None:
            await self.wait_open()
            await send(node_id, batches)

        sender._send_produce_req = fenced  # noqa: SLF001  # see watch_coordinator

    def _refused(self, codes: set[int], what: str, era: int) -> None:
        refusals = [_REFUSALS[code] for code in sorted(codes) if code in _REFUSALS]
        if refusals and self._owns and era == self._era:
            named = " under our name, so give each its own FRESHET_INSTANCE" if _FENCED in codes else ""
            self._die(
                f"the group coordinator refused a {what} ({refusals[0]}): another worker owns our partitions{named}"
            )

    def _heard(self, error: type[Exception], asked_at: float) -> None:
        # A process that stood still finds an old answer in its socket: it is as old as its question may be.
        if error in (kafka_errors.NoError, kafka_errors.RebalanceInProgressError):
            self._answered_at = max(self._answered_at, asked_at)
