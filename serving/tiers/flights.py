"""Flights: in one process, a key is loaded once at a time; whoever asks for it meanwhile gets the same answer.

A load belongs to nobody who waits for it: one that goes away takes it from no other.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from core.errors import FreshetError, StoreBusyError

log = logging.getLogger(__name__)

K = TypeVar("K")
W = TypeVar("W")
V = TypeVar("V")


LOADS_MAX = 256
"""So many are under way at a time: a load goes on when those who wanted it have gone."""


class Flights(Generic[K, W, V]):
    """Loads that are under way."""

    def __init__(self, load: Callable[[Sequence[W]], Awaitable[Mapping[K, V]]], *, key_of: Callable[[W], K]) -> None:
        """Begin without any.

        Args:
            load: Returns the values that exist, within a deadline of its own.
            key_of: The key of what is wanted.
        """
        self._load = load
        self._key_of = key_of
        self._loads = 0
        self._under_way: dict[K, asyncio.Task[Mapping[K, V]]] = {}
        self._began_at: dict[K, float] = {}

    async def get(self, wanted: Sequence[W]) -> dict[K, V]:
        """Return the values that exist: those that nobody is loading are loaded together.

        Raises:
            StoreBusyError: Too many loads are under way.
            StoreError: What a load that brings any of them raised.
        """
        keys = [self._key_of(want) for want in wanted]
        mine = [want for key, want in zip(keys, wanted, strict=True) if key not in self._under_way]
        if mine:
            if self._loads >= LOADS_MAX:
                raise StoreBusyError(f"{self._loads} loads wait for the stores already")
            self._begin(mine)
        flights = {key: self._under_way[key] for key in keys}
        for flight in dict.fromkeys(flights.values()):
            await asyncio.shield(flight)
        return {key: flight.result()[key] for key, flight in flights.items() if key in flight.result()}

    def began_before(self, key: K, at: float) -> bool:
        """Whether a load that is under way for a key began before a time of the event loop."""
        return self._began_at.get(key, at) < at

    def begin(self, wanted: Sequence[W]) -> None:
        """Load what nobody is loading, together and for nobody who waits; or nothing, if too many are under way."""
        mine = [want for want in wanted if self._key_of(want) not in self._under_way]
        if mine and self._loads < LOADS_MAX:
            self._begin(mine).add_done_callback(_tell)

    def _begin(self, wanted: Sequence[W]) -> "asyncio.Task[Mapping[K, V]]":
        keys = [self._key_of(want) for want in wanted]
        flight = asyncio.ensure_future(self._load(wanted))
        self._loads += 1
        self._under_way |= dict.fromkeys(keys, flight)
        self._began_at |= dict.fromkeys(keys, asyncio.get_running_loop().time())
        flight.add_done_callback(lambda landed: self._landed(keys, landed))
        return flight

    def _landed(self, keys: Sequence[K], flight: "asyncio.Future[Mapping[K, V]]") -> None:
        self._loads -= 1
        for key in keys:
            del self._under_way[key]
            del self._began_at[key]
        # If all who waited have gone, nobody else asks what became of it.
        if not flight.cancelled():
            flight.exception()


def _tell(flight: "asyncio.Future[Any]") -> None:
    """Log a bug in a load that nobody waits for; what stores fail at is counted where it happens."""
    if not flight.cancelled() and (error := flight.exception()) is not None and not isinstance(error, FreshetError):
        log.error("a load failed", exc_info=error)
