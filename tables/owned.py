"""The tables that a worker owns now: restored when partitions come, dropped when they go."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType

from aiokafka import TopicPartition

from core.definitions import Registry
from core.plans import GroupPlan
from core.topics import repartition_topic
from tables.changelog import ChangelogWriter
from tables.engine import Engine, in_memory
from tables.restore import ChangelogReader
from tables.table import GroupTable, TablePartition


class OwnedTables:
    """Tables by repartition partition."""

    def __init__(
        self,
        registry: Registry,
        plans: Mapping[str, GroupPlan],
        numbers: Mapping[str, int],
        *,
        reader: ChangelogReader,
        changelog: ChangelogWriter,
        open_engine: Callable[[], Awaitable[Engine]] = in_memory,
        epochs: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._registry = registry
        self._plans = plans
        self._numbers = numbers
        self._reader = reader
        self._changelog = changelog
        self._open_engine = open_engine
        self._epochs = epochs
        self._entities = {repartition_topic(name): name for name in registry.entities}
        self._tables: dict[tuple[str, int], TablePartition] = {}

    def __iter__(self) -> Iterator[TablePartition]:
        return iter(tuple(self._tables.values()))

    @property
    def topics(self) -> list[str]:
        """The repartition topics of all entities."""
        return list(self._entities)

    def get(self, topic: str, partition: int) -> TablePartition | None:
        """Return the table of a repartition partition, or None if it is not owned."""
        return self._tables.get((topic, partition))

    def owns(self, table: TablePartition) -> bool:
        """Whether a table is still the one of its partition."""
        return self._tables.get((repartition_topic(table.entity), table.partition)) is table

    async def take_over(self, committed: Mapping[TopicPartition, int], assigned: set[TopicPartition]) -> None:
        """Restore the tables of assigned partitions from changelog and input.

        Args:
            committed: Offsets from which partitions will be read on; one that is absent was never read.
            assigned: All partitions that are assigned; those of source topics have no table.
        """
        mine = [tp for tp in assigned if tp.topic in self._entities]
        if not mine:
            return
        engine = await self._open_engine()
        tables = {tp: self._new_table(tp, engine) for tp in mine}
        await self._changelog.wait_quiet()
        ends = await self._reader.restore(list(tables.values()))
        await self._reader.warm_ids({table: committed.get(tp, 0) for tp, table in tables.items()})
        self._changelog.begin(ends)
        self._tables = {(tp.topic, tp.partition): table for tp, table in tables.items()}

    def drop(self) -> None:
        """Drop everything: nothing is owned."""
        self._tables = {}
        self._changelog.forget()

    def _new_table(self, tp: TopicPartition, engine: Engine) -> TablePartition:
        entity = self._entities[tp.topic]
        groups = [group for group in self._registry.groups if group.entity.name == entity]
        sources = {source.topic: source for group in groups for source in group.sources}
        return TablePartition(
            entity,
            tp.partition,
            [GroupTable(self._plans[group.name], self._numbers[group.name], engine) for group in groups],
            list(sources.values()),
            epoch=self._epochs.get(entity, 0),
        )
