"""The write-back table: an entity's rows in one partition, changed in memory and flushed by someone else.

Nothing is written per event. A row that was touched is live (mutable tiles) and dirty until it is flushed; rows that
have cooled down are kept as their packed changelog bytes. The table decides and remembers; it does no I/O.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from core.dedupe import SeenIds
from core.definitions import Source
from core.errors import FormatError
from core.keys import partition_key
from core.plans import GroupPlan
from core.ports import RowKey, StoredRow
from core.rows import (
    Stamps,
    Tile,
    pack_change,
    pack_row,
    unpack_change,
    unpack_row,
    unpack_tail,
    version_of_change,
)
from core.tiles import finish_live
from core.topics import row_name
from core.windows import NEVER_MS, to_ms
from tables.expiry import Expiry

LIVE_ROWS_MAX = 20_000


@dataclass(slots=True)
class LiveRow:
    """A row's state while it changes.

    Attributes:
        tiles: Per resolution of the plan: tiles (``[index, state, ...]``) by their index.
        stamps: Last source offset seen, per origin and partition.
        ver: Version of the applied prefix.
        as_of_ms: Newest record timestamp seen.
        event_time_ms: Newest event time applied.
        packed: Changelog bytes of the last flush, or None before it.
    """

    tiles: list[dict[int, Tile]]
    stamps: Stamps = field(default_factory=dict)
    ver: int = 0
    as_of_ms: int = 0
    event_time_ms: int = 0
    packed: bytes | None = None


class PackedRow(NamedTuple):
    """A row ready to be written.

    Attributes:
        stored: For record and Redis.
        change: Bytes for the changelog: the same row and the stamps.
    """

    stored: StoredRow
    change: bytes


class GroupTable:
    """The rows of one group in one partition."""

    def __init__(self, plan: GroupPlan, number: int) -> None:
        self.plan = plan
        self.sk = row_name(plan.name, number)
        self.dirty: dict[str, LiveRow] = {}
        self.expiry = Expiry.of(plan)
        self._rows: dict[str, LiveRow | bytes] = {}
        self._live: dict[str, None] = {}
        self._rows_max = 0

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: str) -> LiveRow:
        """Return the row of an encoded key, made live or made new."""
        row = self._rows.get(key)
        if type(row) is LiveRow:
            return row
        live = self._thaw(key, row) if isinstance(row, bytes) else LiveRow([{} for _ in self.plan.resolutions])
        self._rows[key] = live
        self._live[key] = None
        return live

    def _thaw(self, key: str, change: bytes) -> LiveRow:
        try:
            return thaw(self.plan, change)
        except FormatError as error:
            # A restore looks at a row's begin alone.
            raise FormatError(f"the row {self.sk} of {key} was restored and is broken: {error}") from error

    def parts(self) -> "tuple[dict[str, LiveRow | bytes], dict[str, LiveRow], Callable[[str], LiveRow]]":
        """Return all rows, the dirty ones, and ``row``, for a loop over many updates."""
        return self._rows, self.dirty, self.row

    def put_packed(self, key: str, change: bytes, ver: int) -> None:
        """Restore a row from a changelog record, unless a higher version of it is known (PROTOCOL, P7b)."""
        known = self._rows.get(key)
        if known is None:
            # How old it is, is looked at later, a few rows at a time.
            self.expiry.note(key, 0)
            self._rows[key] = change
        elif ver > (known.ver if isinstance(known, LiveRow) else version_of_change(known)):
            self._rows[key] = change

    def version(self, key: str) -> int | None:
        """Return the version of a row, or None if there is none."""
        known = self._rows.get(key)
        if known is None:
            return None
        return known.ver if isinstance(known, LiveRow) else version_of_change(known)

    def packed(self) -> Iterator[tuple[str, bytes]]:
        """Yield key and changelog bytes of each row as it was flushed last; the table may change meanwhile."""
        for key in list(self._rows):
            row = self._rows.get(key)
            change = row.packed if isinstance(row, LiveRow) else row
            if change is not None:
                yield key, change

    def drop_past(self, *, progress_ms: int, limit: int) -> tuple[int, list[tuple[str, int]]]:
        """Drop rows that are past at a partition's progress, among at most so many that may be.

        Returns:
            How many were looked at, and key and version of each that is gone.
        """
        self._rows_max = max(self._rows_max, len(self._rows))
        looked, dropped = 0, []
        for key in self.expiry.take(progress_ms=progress_ms, limit=limit):
            looked += 1
            row = self._rows.get(key)
            if row is None:
                continue
            as_of_ms, ver = (row.as_of_ms, row.ver) if isinstance(row, LiveRow) else _change_age(row)
            if key in self.dirty:
                # Touched just now: it is looked at again one time span later.
                self.expiry.note(key, progress_ms)
            elif not self.expiry.is_past(as_of_ms, progress_ms=progress_ms):
                self.expiry.note(key, as_of_ms)
            else:
                del self._rows[key]
                self._live.pop(key, None)
                dropped.append((key, ver))
        if self._rows_max > 4 * len(self._rows) + LIVE_ROWS_MAX:
            # A dictionary never gives back the room of what was deleted.
            self._rows, self._live, self._rows_max = dict(self._rows), dict(self._live), len(self._rows)
        return looked, dropped

    def forget(self, key: str, ver: int) -> None:
        """Drop a row that is restored and gone in this version: its tombstone was read."""
        known = self.version(key)
        if known is not None and known <= ver:
            del self._rows[key]

    def cool(self) -> None:
        """Keep the rows that were made live longest ago as bytes again, beyond a bound and if they are clean."""
        excess = len(self._live) - LIVE_ROWS_MAX
        if excess <= 0:
            return
        for key in list(self._live)[:excess]:
            del self._live[key]
            row = self._rows[key]
            if isinstance(row, LiveRow):
                if key in self.dirty or row.packed is None:
                    self._live[key] = None
                else:
                    self._rows[key] = row.packed


class TablePartition:
    """An entity's table in one partition of its repartition topic.

    Attributes:
        as_of_ms: Newest record timestamp that was applied in the partition: its progress.
    """

    def __init__(
        self, entity: str, partition: int, groups: Sequence[GroupTable], sources: Sequence[Source], *, epoch: int = 0
    ) -> None:
        self.entity = entity
        self.partition = partition
        self.epoch = epoch
        self.groups = tuple(groups)
        self.as_of_ms = 0
        self.plans = tuple(group.plan for group in groups)
        self._sources = {source.topic: source for source in sources}
        self._seen: dict[str, SeenIds] = {}

    def seen(self, source: str) -> SeenIds | None:
        """Return the ids seen of a source, or None if it has no event ids or feeds no group any more."""
        seen = self._seen.get(source)
        if seen is None:
            definition = self._sources.get(source)
            if definition is None or definition.event_id is None:
                return None
            seen = SeenIds(horizon_ms=to_ms(definition.dedupe), ids_max=definition.dedupe_ids_max)
            self._seen[source] = seen
        return seen

    @property
    def horizons(self) -> dict[str, int]:
        """How long event ids are remembered, milliseconds, by the topic of each source that has them."""
        return {topic: to_ms(source.dedupe) for topic, source in self._sources.items() if source.event_id is not None}

    def forget_ids(self) -> None:
        """Forget all event ids: they will be entered anew from further back."""
        self._seen = {}

    @property
    def ids(self) -> int:
        """How many event ids are remembered."""
        return sum(len(seen) for seen in self._seen.values())

    def group(self, sk: str) -> GroupTable | None:
        """Return the table of a group's version, or None if it is not an active one."""
        return next((group for group in self.groups if group.sk == sk), None)


def freeze(table: GroupTable, key: str, row: LiveRow) -> PackedRow:
    """Pack a live row, its past tiles left out.

    The head is finished for the row's newest record timestamp, not for a clock: a row's bytes are a function of the
    applied prefix alone, so two owners of one prefix write the same bytes under the same version.
    """
    plan, instant_ms = table.plan, row.as_of_ms
    head = finish_live(plan, row.tiles, instant_ms)
    value = pack_row(
        ver=row.ver,
        fingerprint=plan.fingerprint,
        as_of_ms=instant_ms,
        valid_from_ms=instant_ms,
        valid_until_ms=head.valid_until_ms,
        expires_at_ms=head.expires_at_ms,
        event_time_ms=row.event_time_ms,
        values=head.values,
        tail=head.tail,
    )
    if row.packed is None:
        table.expiry.note(key, row.as_of_ms)
    row.packed = pack_change(value, row.stamps)
    place = RowKey(partition_key(plan.group.entity.name, key), table.sk)
    expires = None if head.expires_at_ms == NEVER_MS else head.expires_at_ms
    return PackedRow(StoredRow(place, row.ver, value, expires), row.packed)


def thaw(plan: GroupPlan, change: bytes) -> LiveRow:
    """Return the live row of changelog bytes.

    Raises:
        FormatError: They are none.
    """
    value, stamps = unpack_change(change)
    row = unpack_row(value)
    tail = dict(unpack_tail(row))
    try:
        tiles = [{tile[0]: tile for tile in tail.get(resolution.tile_ms, ())} for resolution in plan.resolutions]
    except (IndexError, TypeError) as error:
        raise FormatError(f"a tile of a row of version {row.ver} has no index") from error
    return LiveRow(tiles, stamps, row.ver, row.as_of_ms, row.event_time_ms, change)


def _change_age(change: bytes) -> tuple[int, int]:
    row = unpack_row(unpack_change(change)[0])
    return row.as_of_ms, row.ver
