"""Applying a packed record to a table: the whole decision about an update, without I/O (PROTOCOL, P2, P3, P5).

Each update passes the stamp (has this row seen this source offset?), then the id (did the producer send this event
twice?); only then is it added. Stamp and state of a row change together. A replay changes nothing, but its row is
published again: its last publication may have been lost between the changelog and the stores. A duplicate moves the
stamp, so that it stays a duplicate after its id was forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from core.dedupe import IdRun, Verdict, source_positions
from core.errors import FormatError
from core.packs import Pack
from core.versions import version
from tables.program import compile_program
from tables.table import TablePartition

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
        FormatError: The pack lacks a column that a group needs: the dispatcher runs older definitions. Nothing was
            changed.
        SeenIdsFullError: As ``judge``; no row was changed.
    """
    program = compile_program(table.plans, pack.source)
    columns = dict(zip(pack.names, pack.columns, strict=True))
    for name in program.columns:
        if name not in columns:
            raise FormatError(
                f"a packed record of source {pack.source!r} lacks the column {name!r}: it was dispatched with older "
                f"definitions; let workers with those bring the lag to 0, then start dispatchers with the new ones, "
                f"then this one"
            )
    verdicts = judge(table, pack)
    return Applied(*program.run(table.groups, pack, columns, verdicts, version(table.epoch, offset)))


def judge(table: TablePartition, pack: Pack) -> list[Verdict]:
    """Decide which updates repeat an event, remember the ids, and move the partition's progress on.

    Raises:
        SeenIdsFullError: An id does not fit. Those before it are remembered; when the pack is judged again, they are
            replays.
    """
    seen = table.seen(pack.source)
    verdicts = seen.judge_all([_ids_of(pack)])[0] if seen is not None else [Verdict.FIRST] * len(pack.offsets)
    table.as_of_ms = max(table.as_of_ms, max(pack.record_times, default=0))
    return verdicts


def remember(table: TablePartition, packs: Sequence[Pack]) -> None:
    """Remember the ids of several packs, in their order, as ``judge`` does.

    Raises:
        SeenIdsFullError: As ``judge``.
    """
    by_source: dict[str, list[Pack]] = {}
    for pack in packs:
        by_source.setdefault(pack.source, []).append(pack)
        table.as_of_ms = max(table.as_of_ms, max(pack.record_times, default=0))
    for source, mine in by_source.items():
        seen = table.seen(source)
        if seen is not None:
            seen.judge_all([_ids_of(pack) for pack in mine])


def _ids_of(pack: Pack) -> IdRun:
    hashes = [
        xxhash.xxh3_128_intdigest(f"{name}\0{key}".encode()) >> _HASH_SHIFT
        for name, key in zip(pack.event_ids, pack.keys, strict=True)
    ]
    positions = source_positions(pack.topic_id, pack.partition, pack.offsets)
    return IdRun(hashes, positions, pack.checks, pack.record_times, pack.partition)
