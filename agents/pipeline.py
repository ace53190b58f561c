"""The pipeline of one worker: what becomes of runs, and of state when partitions come and go.

Its parts are built in ``app/wiring.py``, and in ``tests/simulation`` from the same classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import TopicPartition
from typing_extensions import override

from agents.aggregate import Aggregator
from agents.cache_debt import CacheDebt
from agents.dispatch import Dispatcher
from agents.guard import die, guarded
from agents.owned_partitions import Ownership
from agents.publish import Publisher
from core.topics import repartition_topic
from core.versions import version
from tables.owned import OwnedTables


class Pipeline(Ownership):
    """Dispatcher and aggregator with the state between them; a role may have only one of the two."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher | None,
        aggregator: Aggregator | None,
        tables: OwnedTables,
        publisher: Publisher,
        debt: CacheDebt,
        generation: Callable[[], int],
        end: Callable[[str], Any] = die,
    ) -> None:
        """Begin without partitions.

        Args:
            dispatcher: Takes runs of sources.
            aggregator: Takes runs of repartition topics.
            tables: State of the partitions that are owned.
            publisher: Publishes the tables' changes.
            debt: What the cache has not taken yet.
            generation: Tells the generation of the group that the worker is in.
            end: Ends the process.
        """
        self._dispatcher = dispatcher
        self._aggregator = aggregator
        self._tables = tables
        self._publisher = publisher
        self._debt = debt
        self._generation = generation
        self._end = end

    async def dispatch(self, message: Any) -> None:
        """Send a run of a source on."""
        if self._dispatcher is not None and self._is_current(message):
            await guarded(self._dispatcher.take(message), what="dispatch", end=self._end)

    async def aggregate(self, message: Any) -> None:
        """Apply a run of a repartition topic."""
        if self._aggregator is not None and self._is_current(message):
            await guarded(self._aggregator.take(message), what="aggregate", end=self._end)

    def _is_current(self, message: Any) -> bool:
        """Whether a run was read in the present generation; one from before would be out of order by now."""
        return bool(message.generation_id == self._generation())

    @override
    async def settle(self) -> None:
        if self._dispatcher is not None:
            await self._dispatcher.settle()
        if self._aggregator is not None:
            await self._aggregator.settle()

    @override
    def given_away(self) -> None:
        self._tables.drop()
        self._publisher.given_away()
        self._debt.given_away()

    @property
    @override
    def has_state(self) -> bool:
        return any(len(group) for table in self._tables for group in table.groups)

    @override
    async def take_over(self, committed: Mapping[TopicPartition, int], assigned: set[TopicPartition]) -> None:
        """Restore the tables of assigned partitions; the cache is owed what their former owner may have owed it."""
        await self._tables.take_over(committed, assigned)
        self._publisher.touch()
        offsets = {(tp.topic, tp.partition): offset for tp, offset in committed.items()}
        for table in self._tables:
            # Without an offset, what was published of a former incarnation of the topic is still there.
            offset = offsets.get((repartition_topic(table.entity), table.partition), 0)
            self._debt.inherit(table, until=version(table.epoch, offset) - 1)
