"""The write-back table: an entity's rows in one partition, changed in memory and flushed by someone else.

Nothing is written per event. A row that was touched is live (mutable tiles) and dirty until it is flushed; rows that
have cooled down are kept as their packed changelog bytes. The table decides and remembers; it does no I/O.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
from aiokafka import TopicPartition

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
from core.topics import changelog_topic, row_name
from core.windows import NEVER_MS, to_ms
from tables.cold import ColdRows
from tables.engine import MEMORY, Engine
from tables.expiry import Expiry

_COOLED_AT_ONCE = 500


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


class PackedRow(msgspec.Struct, frozen=True, gc=False):
    """A row ready to be written.

    Attributes:
        stored: For record and Redis.
        change: Bytes for the changelog: the same row and the stamps.
    """

    stored: StoredRow
    change: bytes


class GroupTable:
    """The rows of one group in one partition."""

    def __init__(self, plan: GroupPlan, number: int, engine: Engine = MEMORY) -> None:
        self.plan = plan
        self.sk = row_name(plan.name, number)
        self.dirty: dict[str, LiveRow] = {}
        self._taken: set[str] = set()
        self.engine = engine
        self.expiry = Expiry.of(plan, engine)
        self._live: dict[str, LiveRow] = {}
        self._cold = engine.rows()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def row(self, key: str) -> LiveRow:
        """Return the row of an encoded key, made live or made new."""
        live = self._live.get(key)
        if live is not None:
            return live
        change = self._cold.get(key)
        if change is None:
            live = LiveRow([{} for _ in self.plan.resolutions])
            self._count += 1
        else:
            live = self._thaw(key, change)
            self._cold.let_go(key)
        self._live[key] = live
        return live

    def _thaw(self, key: str, change: bytes) -> LiveRow:
        try:
            return thaw(self.plan, change)
        except FormatError as error:
            # A restore looks at a row's begin alone.
            raise FormatError(f"the row {self.sk} of {key} was restored and is broken: {error}") from error

    def touch(self, key: str) -> None:
        """Let a row be flushed again as it is."""
        self.dirty[key] = self.row(key)

    def parts(self) -> tuple[dict[str, LiveRow], dict[str, LiveRow], Callable[[str], LiveRow]]:
        """Return the live rows, the dirty ones, and ``row``, for a loop over many updates."""
        return self._live, self.dirty, self.row

    def take_dirty(self) -> dict[str, LiveRow]:
        """Return the dirty rows, to be flushed; the table has none then."""
        dirty, self.dirty = self.dirty, {}
        self._taken = set(dirty)
        return dirty

    @property
    def has_new(self) -> bool:
        """Whether a row is dirty that was not taken since the last time that all were."""
        return any(key not in self._taken for key in self.dirty)

    def take_new(self) -> dict[str, LiveRow]:
        """Return those of the dirty rows that were not taken since the last time that all were, to be flushed."""
        new = {key: row for key, row in self.dirty.items() if key not in self._taken}
        for key in new:
            del self.dirty[key]
        self._taken.update(new)
        return new

    def put_packed(self, key: str, change: bytes, ver: int) -> None:
        """Restore a row from a changelog record, unless a higher version of it is known (PROTOCOL, P7b)."""
        known = self.version(key)
        if known is None:
            self.put_new(key, change)
        elif ver > known:
            self._live.pop(key, None)
            self._cold[key] = change

    def put_new(self, key: str, change: bytes) -> None:
        """Restore a row that is not there yet."""
        # How old it is, is looked at later, a few rows at a time.
        self.expiry.note(key, 0)
        self._count += 1
        self._cold[key] = change

    def cold(self) -> ColdRows:
        """Return the rows that are not live; while nothing is applied these are all."""
        return self._cold

    def version(self, key: str) -> int | None:
        """Return the version of a row, or None if there is none."""
        live = self._live.get(key)
        if live is not None:
            return live.ver
        change = self._cold.get(key)
        return version_of_change(change) if change is not None else None

    def packed(self) -> Iterator[tuple[str, bytes]]:
        """Yield key and changelog bytes of each row as it was flushed last; the table may change meanwhile."""
        live = list(self._live)
        for key in live:
            row = self._live.get(key)
            change = row.packed if row is not None else self._cold.get(key)
            if change is not None:
                yield key, change
        told = set(live)
        for key, cold in self._cold.items_meanwhile():
            if key not in told:
                row = self._live.get(key)
                change = row.packed if row is not None else cold
                if change is not None:
                    yield key, change

    def drop_past(self, *, progress_ms: int, limit: int) -> tuple[int, list[tuple[str, int]]]:
        """Drop rows that are past at a partition's progress, among at most so many that may be.

        Returns:
            How many were looked at, and key and version of each that is gone.
        """
        looked, dropped = 0, []
        for key in self.expiry.take(progress_ms=progress_ms, limit=limit):
            looked += 1
            age = self._age(key)
            if age is None:
                continue
            as_of_ms, ver = age
            if key in self.dirty:
                # Touched just now: it is looked at again one time span later.
                self.expiry.note(key, progress_ms)
            elif not self.expiry.is_past(as_of_ms, progress_ms=progress_ms):
                self.expiry.note(key, as_of_ms)
            else:
                self._drop(key)
                dropped.append((key, ver))
        self._cold.shrink()
        return looked, dropped

    def forget(self, key: str, ver: int) -> None:
        """Drop a row that is restored and gone in this version: its tombstone was read."""
        known = self.version(key)
        if known is not None and known <= ver:
            self._drop(key)

    def cool(self) -> Iterator[None]:
        """Keep the rows that were made live longest ago as bytes again, beyond a bound and if they are clean.

        Some are cooled at each step; between the steps the table may change.
        """
        excess = max(len(self._live) - self.engine.live_rows_max, 0)
        oldest = list(islice(self._live, excess))
        for start in range(0, excess, _COOLED_AT_ONCE):
            self._cool(oldest[start : start + _COOLED_AT_ONCE])
            yield

    def _cool(self, keys: Sequence[str]) -> None:
        cooled: dict[str, bytes] = {}
        for key in keys:
            row = self._live.pop(key, None)
            if row is None:
                continue
            if key in self.dirty or row.packed is None:
                self._live[key] = row
            else:
                cooled[key] = row.packed
        self._cold.update(cooled)

    def _age(self, key: str) -> tuple[int, int] | None:
        """Return a row's newest record time and its version, or None if there is none."""
        live = self._live.get(key)
        if live is not None:
            return live.as_of_ms, live.ver
        change = self._cold.get(key)
        if change is None:
            return None
        row = unpack_row(unpack_change(change)[0])
        return row.as_of_ms, row.ver

    def _drop(self, key: str) -> None:
        self._live.pop(key, None)
        self._cold.drop(key)
        self._count -= 1


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
    def changelog(self) -> TopicPartition:
        """Where its rows are written."""
        return TopicPartition(changelog_topic(self.entity), self.partition)

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
