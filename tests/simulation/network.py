"""The wire between processes and everything else: what is asked arrives late, twice, never, or after its sender is dead.

One source of chance per schedule draws all of it.
"""

import asyncio
import random
import zlib
from collections import defaultdict
from collections.abc import Callable
from struct import Struct
from typing import Any, TypeVar

from tests.simulation.loop import VirtualLoop

T = TypeVar("T")

_TIME = Struct("<d")


class LostError(Exception):
    """No answer came."""


class Network:
    """Carries requests.

    Attributes:
        chance: Draws everything.
        carried: How many messages arrived.
        trace: Of what arrived when: two runs of one schedule have the same.
        last_arrival_s: When the last message that is on its way will be there.
        cut_until: By the name of a service, until when nothing gets through to it.
        loss: Probability that a message is lost while the network is bad.
        late: Probability that one is very late while the network is bad.
        latest_s: How late at most.
        was_late: Whether any was.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, *, loss: float, late: float, latest_s: float) -> None:
        self.loop = loop
        self.chance = chance
        self.carried = 0
        self.cut_until: dict[str, float] = {}
        self.loss, self.late, self.latest_s = loss, late, latest_s
        self.was_late = False
        self.last_arrival_s = 0.0
        self._lives: defaultdict[str, int] = defaultdict(int)
        self.trace = 0

    def is_cut(self, service: str) -> bool:
        """Whether nothing gets through to a service."""
        return self.loop.time() < self.cut_until.get(service, 0.0)

    async def ask(self, service: str, serve: Callable[[], T], *, timeout_s: float, slow_s: float = 0.0) -> T:
        """Let a service do something, once the request has arrived there, and return what it answers.

        The request may arrive although no answer comes, and after whoever has sent it is dead.

        Args:
            service: Its name.
            serve: What it does, at once.
            timeout_s: How long the sender waits.
            slow_s: What the way takes at most, where it is much.

        Raises:
            LostError: No answer within that time.
        """
        loop = self.loop
        answer: asyncio.Future[T] = loop.create_future()
        way_s = self._way_s(slow_s)
        self.last_arrival_s = max(self.last_arrival_s, loop.time() + way_s)
        loop.later(way_s, self._arrive, service, self._lives[service], serve, answer)
        timer = loop.call_later(timeout_s, _give_up, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _way_s(self, slow_s: float) -> float:
        chance = self.chance
        if chance.random() < self.late:
            self.was_late = True
            return chance.uniform(0.1, self.latest_s)
        return chance.uniform(0.001, max(slow_s, 0.02))

    def restart(self, service: str) -> None:
        """Let a service begin anew: what is on its way to it was on connections that are gone."""
        self._lives[service] += 1

    def _arrive(self, service: str, life: int, serve: Callable[[], Any], answer: "asyncio.Future[Any]") -> None:
        if life != self._lives[service] or self.is_cut(service) or self.chance.random() < self.loss:
            return
        self.carried += 1
        self.trace = zlib.crc32(_TIME.pack(self.loop.time()) + service.encode(), self.trace)
        try:
            result, error = serve(), None
        except Exception as raised:  # noqa: BLE001  # the answer is an error, whatever it is
            result, error = None, raised
        if self.chance.random() < self.loss:
            return
        self.loop.later(self.chance.uniform(0.001, 0.02), _answer, answer, result, error)


def _answer(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _give_up(answer: "asyncio.Future[Any]") -> None:
    if not answer.done():
        answer.set_exception(LostError())
