"""Preloading: a worker that begins copies the rows of groups that want it, from their compacted changelogs.

A worker that aggregates has just restored its tables from them; one that only serves reads them for this, once. What is
read is what a restore would leave, the highest version of each row; it is a copy like any other from then on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from core.definitions import Registry
from core.errors import BrokerError, FormatError
from core.keys import partition_key
from core.plans import GroupPlan
from core.ports import RowKey
from core.rows import unpack_change
from serving.answers.read_plans import terms_of
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Wanted
from tables.table import GroupTable, TablePartition

log = logging.getLogger(__name__)

PRELOAD_S = 30.0
"""So long a worker that only serves reads changelogs before it begins without."""
_SLICE = 500


def preloaded(registry: Registry) -> list[str]:
    """Return the names of the groups whose rows are copied before they are asked for."""
    return [group.name for group in registry.groups if group.serving.preload and group.serving.tier == "local"]


async def preload_all(
    registry: Registry,
    plans: Mapping[str, GroupPlan],
    numbers: Mapping[str, int],
    *,
    restore: Callable[[Sequence[TablePartition]], Awaitable[object]],
    reader: TieredReader,
    now_ms: int,
    within_s: float = PRELOAD_S,
) -> None:
    """Copy the rows of all keys; without them, if the changelogs cannot be read in time.

    Args:
        registry: The definitions.
        plans: Per group.
        numbers: Per group, its version's number.
        restore: Fills tables from their changelogs.
        reader: Keeps copies.
        now_ms: When this begins: copies age from then on.
        within_s: How long it may take.
    """
    names = preloaded(registry)
    entities = {plans[name].group.entity.name: plans[name].group.entity for name in names}
    tables = [
        TablePartition(
            entity.name,
            partition,
            [GroupTable(plans[name], numbers[name]) for name in names if plans[name].group.entity.name == entity.name],
            [],
        )
        for entity in entities.values()
        for partition in range(entity.partitions)
    ]
    try:
        async with asyncio.timeout(within_s):
            await restore(tables)
    except (BrokerError, TimeoutError) as error:
        log.warning("nothing preloaded: %s", error or f"the changelogs were not read within {within_s:g} s")
        return
    await preload(tables, reader=reader, now_ms=now_ms)


async def preload(tables: Iterable[TablePartition], *, reader: TieredReader, now_ms: int) -> None:
    """Copy the rows of restored tables whose groups want it, while there is room."""
    copied = 0
    with reader.copies.reading():
        for table in tables:
            for group in table.groups:
                policy = group.plan.group.serving
                if not policy.preload or policy.tier != "local":
                    continue
                terms = terms_of(group.plan)
                for key, change in group.packed():
                    place = RowKey(partition_key(table.entity, key), group.sk)
                    try:
                        has_room = reader.preload(Wanted(place, terms), unpack_change(change)[0], read_at_ms=now_ms)
                    except FormatError as error:
                        # A restore looks at a row's begin alone; who asks for it is told.
                        log.warning("row not preloaded: %s", error)
                        continue
                    if not has_room:
                        log.warning("not all rows preloaded: there is no room", extra={"rows": copied})
                        return
                    copied += 1
                    if copied % _SLICE == 0:
                        await asyncio.sleep(0)
    log.info("rows preloaded", extra={"rows": copied})
