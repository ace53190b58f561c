"""Stores behind the network: they fail, answer too late, do a part, or do it after nobody waits for it any more."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from typing_extensions import override

from core.errors import PartialWriteError, StoreError, StoreTimeoutError
from core.ports import RowKey, Store, StoredRow
from stores.memory import MemoryStore
from tests.simulation.network import LostError, Network

T = TypeVar("T")


class SimulatedStore(Store):
    """One process' way to a store.

    The store itself compares versions as every store does (``tests/contract`` holds each adapter to that).
    """

    def __init__(self, name: str, held: MemoryStore, network: Network) -> None:
        self.name = name
        self._refuses = f"{name} refuses"
        self._held = held
        self._network = network

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        return await self._ask(lambda: run_now(self._held.read(keys, deadline_ms=deadline_ms)), deadline_ms)

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        taken = list(rows)
        chance = self._network.chance
        if len(taken) > 1 and chance.random() < self._network.loss:
            chance.shuffle(taken)
            taken = taken[: chance.randrange(len(taken))]
        await self._ask(lambda: run_now(self._held.write(taken, deadline_ms=deadline_ms)), deadline_ms)
        if len(taken) < len(rows):
            sure = {row.key for row in taken}
            failed = frozenset(row.key for row in rows if row.key not in sure)
            raise PartialWriteError(f"{self.name}: a part was left out", failed)
        return len(taken)

    @override
    async def close(self) -> None: ...

    async def _ask(self, serve: Callable[[], T], deadline_ms: int) -> T:
        if self._network.is_cut(self._refuses):
            raise StoreError(f"{self.name} is down")
        try:
            return await self._network.ask(self.name, serve, timeout_s=deadline_ms / 1000)
        except LostError:
            raise StoreTimeoutError(f"{self.name}: no answer within {deadline_ms} ms") from None


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Return what something that never waits returns."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a memory store waits for nothing")
