"""Applying a packed record to a table: the whole decision about an update, without I/O (PROTOCOL, P2, P3, P5).

Each update passes the stamp (has this row seen this source offset?), then the id (did the producer send this event
twice?); only then is it added. Stamp and state of a row change together. A replay changes nothing, but its row is
published again: its last publication may have been lost between the changelog and the stores. A duplicate moves the
stamp, so that it stays a duplicate after its id was forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import xxhash

from core.aggregations import Count
from core.dedupe import Verdict
from core.errors import FormatError
from core.packs import Pack
from core.plans import Step
from core.versions import OFFSET_BITS, version
from core.windows import tile_index
from tables.table import GroupTable, LiveRow, TablePartition

_HASH_SHIFT = 128 - 72


@dataclass(slots=True)
class Applied:
    """What became of updates: counts per (source offset, entity key)."""

    applied: int = 0
    duplicates: int = 0
    conflicts: int = 0
    replays: int = 0

    def add(self, other: "Applied") -> None:
        """Add another count to this one."""
        self.applied += other.applied
        self.duplicates += other.duplicates
        self.conflicts += other.conflicts
        self.replays += other.replays


def apply_pack(table: TablePartition, pack: Pack, offset: int) -> Applied:
    """Apply the updates of one packed record.

    Args:
        table: The partition that the record belongs to.
        pack: The record's content.
        offset: The record's offset in the repartition topic.

    Raises:
        FormatError: The pack lacks a column that a group needs: the dispatcher runs older definitions.
        SeenIdsFullError: No room for the ids; nothing was changed.
    """
    verdicts = judge(table, pack)
    ver = version(table.epoch, offset)
    fresh = [False] * len(pack.offsets)
    for group in table.groups:
        steps = group.plan.steps.get(pack.source)
        if steps:
            _apply_group(group, pack, ver, _bind(steps, pack), verdicts, fresh)
    return _count(verdicts, fresh)


def judge(table: TablePartition, pack: Pack) -> list[Verdict]:
    """Decide which updates repeat an event, remember the ids, and move the partition's progress on.

    Raises:
        SeenIdsFullError: No room for the ids; nothing was changed.
    """
    seen = table.seen(pack.source)
    if seen is None:
        verdicts = [Verdict.FIRST] * len(pack.offsets)
    else:
        hashes = [
            xxhash.xxh3_128_intdigest(f"{name}\0{key}".encode()) >> _HASH_SHIFT
            for name, key in zip(pack.event_ids, pack.keys, strict=True)
        ]
        base = pack.partition << OFFSET_BITS
        positions = [base | offset for offset in pack.offsets]
        verdicts = seen.judge(hashes, positions, pack.checks, pack.record_times, partition=pack.partition)
    table.as_of_ms = max(table.as_of_ms, max(pack.record_times, default=0))
    return verdicts


class _Bound(NamedTuple):
    """A step with the columns of one pack.

    Attributes:
        counts: Whether it does no more than count, which is most of what features do.
    """

    counts: bool
    add: Callable[[Any, Any, int, str], Any]
    takes_null: bool
    values: list[Any] | None
    wheres: list[Any] | None
    places: tuple[tuple[int, int, int], ...]


def _bind(steps: tuple[Step, ...], pack: Pack) -> list[_Bound]:
    columns = dict(zip(pack.names, pack.columns, strict=True))
    try:
        return [
            _Bound(
                type(step.aggregation) is Count,
                step.aggregation.add,
                step.value is None or step.aggregation.takes_null,
                None if step.value is None else columns[step.value],
                None if step.where is None else columns[step.where],
                step.places,
            )
            for step in steps
        ]
    except KeyError as error:
        raise FormatError(
            f"a packed record of source {pack.source!r} lacks the column {error.args[0]!r}: it was dispatched with "
            f"older definitions; start the dispatchers with the new ones first"
        ) from error


def _apply_group(
    group: GroupTable, pack: Pack, ver: int, bound: list[_Bound], verdicts: list[Verdict], fresh: list[bool]
) -> None:
    origin, partition = pack.origin, pack.partition
    zeros = group.zeros
    for number, (key, offset) in enumerate(zip(pack.keys, pack.offsets, strict=True)):
        row = group.row(key)
        group.dirty[key] = row
        stamps = row.stamps.get(origin)
        if stamps is None:
            stamps = row.stamps[origin] = {}
        if offset <= stamps.get(partition, -1):
            continue
        stamps[partition] = offset
        row.ver = ver
        row.as_of_ms = max(row.as_of_ms, pack.record_times[number])
        fresh[number] = True
        if verdicts[number] is Verdict.FIRST:
            _add(row, pack, number, bound, zeros)


def _add(row: LiveRow, pack: Pack, number: int, bound: list[_Bound], zeros: list[Callable[[], list[Any]]]) -> None:
    time_ms, event_id = pack.event_times[number], pack.event_ids[number]
    row.event_time_ms = max(row.event_time_ms, time_ms)
    touched: list[list[Any] | None] = [None] * len(zeros)
    for counts, add, takes_null, values, wheres, places in bound:
        if wheres is not None and not wheres[number]:
            continue
        value = None if values is None else values[number]
        if value is None and not takes_null:
            continue
        for resolution, tile_ms, slot in places:
            states = touched[resolution]
            if states is None:
                tiles = row.tiles[resolution]
                index = tile_index(time_ms, tile_ms)
                states = tiles.get(index)
                if states is None:
                    states = tiles[index] = zeros[resolution]()
                touched[resolution] = states
            if counts:
                states[slot] += 1
            else:
                states[slot] = add(states[slot], value, time_ms, event_id)


def _count(verdicts: list[Verdict], fresh: list[bool]) -> Applied:
    counts = Applied()
    for verdict, is_fresh in zip(verdicts, fresh, strict=True):
        if not is_fresh:
            counts.replays += 1
        elif verdict is Verdict.FIRST:
            counts.applied += 1
        else:
            counts.duplicates += 1
            counts.conflicts += verdict is Verdict.CONFLICT
    return counts
