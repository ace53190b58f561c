"""One partition in which rows become past: a log, an owner that dies, a changelog that is compacted, and what is served.

The parts are the real ones: tables, restoring, removal. What is served is read as a reader reads it, from the record.
"""

from types import SimpleNamespace

from aiokafka import TopicPartition
from hypothesis import strategies as st

from core.packs import Pack
from core.ports import RowKey
from core.rows import unpack_row, unpack_tail
from core.tiles import finish
from core.versions import version_bytes
from tables.apply import apply_pack, judge
from tables.changelog import Tombstone, change_key
from tables.expiry import keep_ms
from tables.restore import Restoration
from tables.table import freeze
from tests.aggregating import CHANGELOG, CLICKS, FAST, NOW_MS, PLANS, TAPS, new_table
from tests.packed import cool, empty_pack

HOUR_MS, TILE_MS, DEDUPE_MS = 3_600_000, 300_000, 900_000
KEEP_MS = keep_ms(PLANS["fast"])
SOURCES = {"clicks": CLICKS, "taps": TAPS}
USERS = 3

GAPS_MS = st.sampled_from(
    [0, 1, 60_000, TILE_MS, DEDUPE_MS, HOUR_MS, KEEP_MS - 1, KEEP_MS, KEEP_MS + TILE_MS, 2 * KEEP_MS]
)
DRAWN = st.lists(
    st.tuples(
        st.sampled_from(["clicks", "taps", "taps", "repeat"]),
        st.integers(1, USERS),
        GAPS_MS,
        st.sampled_from([-10_000, 0, 1, TILE_MS, HOUR_MS, 2 * KEEP_MS]),
        st.sampled_from([0, 0, 0, TILE_MS, KEEP_MS, 2 * KEEP_MS]),
    ),
    min_size=1,
    max_size=20,
)


class Past:
    """A world of one group of windows of an hour, in which everything happens by a source of chance.

    Attributes:
        table: The present owner's.
    """

    def __init__(self, chance) -> None:
        self.chance = chance
        self.now_ms = NOW_MS
        self.table = new_table()
        self._events: list[tuple[str, str, int]] = []
        self._clicks: list[tuple[str, int, int, str]] = []
        self._packs: list[Pack] = []
        self._applied = self._committed = 0
        self._changes: list[SimpleNamespace] = []
        self._record: dict[str, tuple[int, int, bytes]] = {}

    # -- what comes

    @staticmethod
    def pack_of(source, offset, key, record_ms, event_ms, *, event_id=None) -> Pack:
        """A pack of one event, whose place in the log is its place in the source."""
        pack = empty_pack(source.topic, "", 0, [])
        pack.offsets.append(offset)
        pack.record_times.append(record_ms)
        pack.event_times.append(event_ms)
        pack.event_ids.append(event_id or f"e{offset}")
        pack.checks.append(0)
        pack.keys.append(key)
        return pack

    def produce(self, what, user, gap_ms, age_ms, lag_ms) -> None:
        """Let time pass and an event come; its record may be of a partition that lags, so progress is ahead of it."""
        self.now_ms += gap_ms
        if what == "repeat":
            if self._clicks:
                self.repeat(self.chance.randrange(len(self._clicks)))
            return
        key, lag_ms = f"i{user}", 0 if what == "clicks" else lag_ms
        record_ms = self.now_ms - lag_ms
        if what == "clicks":
            self._clicks.append((key, record_ms, record_ms - age_ms, f"e{len(self._packs)}"))
        self._events.append((what, key, record_ms - age_ms))
        self._packs.append(self.pack_of(SOURCES[what], len(self._packs), key, record_ms, record_ms - age_ms))

    def repeat(self, number) -> None:
        """Send a click again: while its id is known, or when it is in no window; in between it counts, by design."""
        key, record_ms, event_ms, event_id = self._clicks[number]
        if not DEDUPE_MS < self.now_ms - record_ms < KEEP_MS:
            offset = len(self._packs)
            self._packs.append(self.pack_of(CLICKS, offset, key, self.now_ms, event_ms, event_id=event_id))

    # -- what the owner does

    def work(self) -> None:
        """Apply, flush, commit, remove, die, be compacted: or not."""
        if self._happens(0.8):
            self.catch_up(commit=self._happens(0.5))
        if self._happens(0.6):
            self.remove(written=self._happens(0.8))
        if self._happens(0.2):
            self.compact()
        if self._happens(0.3):
            self.crash()
        self.catch_up(commit=self._happens(0.5))

    def _happens(self, likely) -> bool:
        return self.chance.random() < likely

    def catch_up(self, *, commit=True) -> None:
        """Apply what has come and write what has changed."""
        for offset in range(self._applied, len(self._packs)):
            apply_pack(self.table, self._packs[offset], offset)
        self._applied = len(self._packs)
        self._flush()
        if commit:
            self._committed = self._applied

    def remove(self, *, written=True) -> None:
        """Remove what is past; the owner may die before the tombstones are written."""
        group = self.table.group(FAST)
        _, dropped = group.drop_past(progress_ms=min(self.table.as_of_ms, self.now_ms), limit=1_000)
        for key, ver in dropped if written else ():
            stone = Tombstone(RowKey(f"user#{key}", FAST), ver)
            self._write(change_key(stone.key), None, [("ver", version_bytes(ver))])
        if not written:
            self.crash()

    def crash(self) -> None:
        """Begin anew from the changelog and the last commit, as a successor does."""
        place, self.table = TopicPartition(CHANGELOG, 0), new_table()
        restoration = Restoration({place: self.table})
        for offset, change in enumerate(self._changes):
            change.offset = offset
            restoration.take(place, change)
        restoration.refuse_unreadable()
        for pack in self._packs[: self._committed]:
            judge(self.table, pack)
        self._applied = self._committed

    def compact(self) -> None:
        """Keep the last record of every key, and tombstones for a while or not."""
        last = {change.key: change for change in self._changes}
        stones = self.chance.random() < 0.5
        self._changes = [change for change in last.values() if stones or change.value is not None]

    def _flush(self) -> None:
        group = self.table.group(FAST)
        for key, row in group.dirty.items():
            packed = freeze(group, key, row)
            self._write(change_key(packed.stored.key), packed.change, [])
            held = self._record.get(key)
            if held is None or packed.stored.ver > held[0] or held[1] <= self.now_ms:
                self._record[key] = (packed.stored.ver, packed.stored.expires_at_ms, packed.stored.value)
        for each in self.table.groups:
            each.dirty.clear()
            cool(each)

    def _write(self, key, value, headers) -> None:
        self._changes.append(SimpleNamespace(key=key, value=value, headers=headers, offset=0))

    # -- what is served

    def check(self) -> None:
        """Compare what is served now and later with a count of the distinct events in the window."""
        for later_ms in (0, 1, TILE_MS, HOUR_MS - 1):
            for user in range(1, USERS + 1):
                instant_ms = self.now_ms + later_ms
                assert self.served(f"i{user}", later_ms=later_ms) == {
                    f"{source}_1h": self._count(source, f"i{user}", instant_ms) for source in SOURCES
                }

    def served(self, key, *, later_ms=0) -> dict[str, int]:
        """Return the values of a key as a reader with the right time serves them."""
        plan, instant_ms = PLANS["fast"], self.now_ms + later_ms
        values = plan.empty
        _, expires_at_ms, value = self._record.get(key, (0, 0, b""))
        if expires_at_ms > instant_ms:
            row = unpack_row(value)
            values = row.values
            if instant_ms >= row.valid_until_ms:
                values = finish(plan, unpack_tail(row), instant_ms).values
        return dict(zip((feature.name for feature in plan.features), values, strict=True))

    def _count(self, source, key, instant_ms) -> int:
        first, last = (instant_ms - HOUR_MS) // TILE_MS, instant_ms // TILE_MS
        return sum(
            (source, key) == (of, whose) and first <= event_ms // TILE_MS <= last
            for of, whose, event_ms in self._events
        )
