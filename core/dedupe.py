"""Which event ids were seen lately: a producer's repetition told from a replay (PROTOCOL, P3).

An id keeps the source position at which it was first seen. The same id at the same position is a replay and enters
again; at another position it is a duplicate. Time is the newest record timestamp of the id's own source partition,
never a clock and never another partition's: a partition that is read faster must not make the others forget. It is
cut into slices of an eighth of the horizon, so every decision depends on the applied prefix alone.

Young ids are in a dict, which is quick to add to. A full dict becomes a segment of sorted arrays, 20 bytes an id: 64
bits of hash, the position (16 bits of partition, 48 of topic and offset), the slice, 8 more bits of hash and 8 bits of
a check of the payload. Segments of like size are merged, so a look-up asks few of them, for a whole run of ids at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

from core.errors import FreshetError
from core.versions import OFFSET_BITS

SLICES = 8
_SEAL_AT = 1 << 14
_PURGE_AT = 1 << 12
# Merging more than this at once would hold up the event loop for longer than the look-ups gain.
_MERGE_MAX = 1 << 21
_EXTRA_BITS = 8
_SLICE_MASK = 0xFFFF


class Verdict(Enum):
    """What an id turned out to be."""

    FIRST = "first"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class SeenIdsFullError(FreshetError):
    """No room for another id; the worker waits until it is started with a higher limit."""


_Entry: TypeAlias = tuple[int, int, int]
"""Position, slice number and check: a plain tuple, because one is made per event."""


def source_positions(topic_id: str, partition: int, offsets: Sequence[int]) -> list[int]:
    """Return the positions of records of one source partition, in memory only: no bytes of them are kept.

    A topic that was made anew and filled again has the same events at the same offsets, and they are no replays of the
    old one. So the topic's id is in the position: different offsets of a topic always differ, and the same offset of
    two topics does but once in 2**48.

    Args:
        topic_id: Identity of the topic's incarnation, empty where the broker tells none.
        partition: The source partition, below 65,536.
        offsets: Source offsets, below 2**48.

    >>> old, new = (source_positions(topic_id, 3, [0, 1]) for topic_id in ("old", "new"))
    >>> len({*old, *new}), {position >> 48 for position in (*old, *new)}
    (4, {3})
    """
    base = partition << OFFSET_BITS | xxhash.xxh3_64_intdigest(topic_id.encode()) >> 64 - OFFSET_BITS
    return [base ^ offset for offset in offsets]


class IdRun(NamedTuple):
    """Ids of one source partition, in their order; the parts are those of ``SeenIds.judge``."""

    hashes: Sequence[int]
    positions: Sequence[int]
    checks: Sequence[int]
    times: Sequence[int]
    partition: int


class SeenIds:
    """Ids of one source, as far as they reach one partition of an entity.

    >>> seen = SeenIds(horizon_ms=900_000, ids_max=1000)
    >>> verdicts = seen.judge([7, 7, 7, 7], [10, 10, 11, 12], [1, 1, 1, 2], [0, 0, 0, 0], partition=0)
    >>> [verdict.value for verdict in verdicts]
    ['first', 'first', 'duplicate', 'conflict']
    """

    def __init__(self, *, horizon_ms: int, ids_max: int) -> None:
        self._slice_ms = max(-(-horizon_ms // SLICES), 1)
        self._ids_max = ids_max
        self._clocks: dict[int, int] = {}
        self._purged_at: dict[int, int] = {}
        self._young: dict[int, _Entry] = {}
        self._segments: list[_Segment] = []

    def __len__(self) -> int:
        return len(self._young) + sum(len(segment.hashes) for segment in self._segments)

    def judge(
        self,
        hashes: Sequence[int],
        positions: Sequence[int],
        checks: Sequence[int],
        times: Sequence[int],
        *,
        partition: int,
    ) -> list[Verdict]:
        """Decide for a run of ids of one source partition, and enter those that are new.

        Args:
            hashes: 72-bit hashes of (event id, entity key).
            positions: Source positions (``source_positions``), of which the upper 16 bits are the partition.
            checks: Checks of the payloads, of which 8 bits count.
            times: Record timestamps, milliseconds; one that is older than the newest so far counts as that.
            partition: The source partition, below 65,536.

        Raises:
            SeenIdsFullError: A new id does not fit. Those before it are entered; when the run is judged again, they
                are replays.
        """
        return self.judge_all([IdRun(hashes, positions, checks, times, partition)])[0]

    def judge_all(self, runs: "Sequence[IdRun]") -> list[list[Verdict]]:
        """Decide for several runs, one after the other; ids of long ago are looked up for all of them at once.

        Raises:
            SeenIdsFullError: As ``judge``.
        """
        sealed = self._find_sealed([name for run in runs for name in run.hashes])
        verdicts, first = [], 0
        for run in runs:
            verdicts.append(self._judge(run, sealed, first))
            first += len(run.hashes)
        if len(self._young) >= _SEAL_AT:
            self._seal()
        return verdicts

    def _judge(self, run: "IdRun", sealed: dict[int, list[_Entry]], first: int) -> list[Verdict]:
        """Decide for a run whose ids stand in ``sealed`` from a number on."""
        hashes, positions, checks, times, partition = run
        room, now, verdicts = self._ids_max - len(self), self._clocks.setdefault(partition, -1), []
        young, slice_ends_ms = self._young, (now + 1) * self._slice_ms
        if (
            not sealed
            and len(hashes) <= room
            and max(times, default=0) < slice_ends_ms
            and young.keys().isdisjoint(hashes)
            and len(set(hashes)) == len(hashes)
        ):
            # Most runs are like this, and to go through them one by one takes more than twice as long.
            masked = [check & 0xFF for check in checks]
            young.update(zip(hashes, zip(positions, repeat(now, len(hashes)), masked, strict=True), strict=True))
            return [Verdict.FIRST] * len(hashes)
        entries = enumerate(zip(hashes, positions, checks, times, strict=True), first)
        for number, (name, position, check, time_ms) in entries:
            if time_ms >= slice_ends_ms:
                now = self._advance(partition, time_ms // self._slice_ms)
                young, slice_ends_ms = self._young, (now + 1) * self._slice_ms
            known = young.get(name)
            if known is not None and not self._counts(known):
                known = None
            if known is None and sealed:
                known = next(filter(self._counts, sealed.get(number, ())), None)
            if known is None:
                if not room:
                    room, young = self._make_room(), self._young
                room -= 1
                young[name] = (position, now, check & 0xFF)
                verdicts.append(Verdict.FIRST)
            elif known[0] == position:
                verdicts.append(Verdict.FIRST)
            else:
                verdicts.append(Verdict.DUPLICATE if known[2] == check & 0xFF else Verdict.CONFLICT)
        return verdicts

    def _make_room(self) -> int:
        self._purge()
        room = self._ids_max - len(self)
        if room > 0:
            return room
        raise SeenIdsFullError(
            f"{len(self)} event ids are remembered, the limit is {self._ids_max}: "
            f"raise the source's dedupe_ids_max or shorten its dedupe horizon"
        )

    def _counts(self, entry: _Entry) -> bool:
        """Whether an entry is within the horizon of its own partition's time."""
        return self._clocks[entry[0] >> OFFSET_BITS] - entry[1] <= SLICES

    def _advance(self, partition: int, slice_number: int) -> int:
        before, purged_at = self._clocks[partition], self._purged_at.setdefault(partition, slice_number)
        is_far = slice_number - before > SLICES
        # Once per horizon, and before a far step: a slice number, of which segments keep 16 bits, never comes round
        # again, also where nothing came for as long as that takes.
        if slice_number - purged_at > SLICES and (is_far or self._worth_purging()):
            self._clocks[partition] = min(slice_number, before + SLICES + 1)
            self._purge()
            self._purged_at[partition] = slice_number
        self._clocks[partition] = slice_number
        return slice_number

    def _worth_purging(self) -> bool:
        return bool(self._segments) or len(self._young) >= _PURGE_AT

    def _purge(self) -> None:
        self._purged_at = dict(self._clocks)
        self._young = {name: entry for name, entry in self._young.items() if self._counts(entry)}
        kept = (segment.select(self._fresh(segment)) for segment in self._segments)
        self._segments = [segment for segment in kept if len(segment.hashes)]

    def _fresh(self, segment: "_Segment") -> npt.NDArray[np.bool_]:
        clocks = np.zeros(max(self._clocks) + 1, dtype=np.int64)
        for partition, now in self._clocks.items():
            clocks[partition] = now
        ages = (clocks[segment.positions >> np.uint64(OFFSET_BITS)] - segment.slices) & _SLICE_MASK
        fresh: npt.NDArray[np.bool_] = ages <= SLICES
        return fresh

    def _seal(self) -> None:
        names, entries, size = self._young.keys(), self._young.values(), len(self._young)
        segment = _Segment(
            np.fromiter((name >> _EXTRA_BITS for name in names), np.uint64, size),
            np.fromiter((entry[0] for entry in entries), np.uint64, size),
            np.fromiter((entry[1] & _SLICE_MASK for entry in entries), np.uint16, size),
            np.fromiter((name & 0xFF for name in names), np.uint8, size),
            np.fromiter((entry[2] for entry in entries), np.uint8, size),
        ).sorted()
        while self._segments and segment.is_worth_merging(self._segments[-1]):
            segment = self._segments.pop().merge(segment)
        self._segments.append(segment)
        self._young = {}

    def _find_sealed(self, hashes: Sequence[int]) -> dict[int, list[_Entry]]:
        if not self._segments or not hashes:
            return {}
        wanted = np.array([name >> _EXTRA_BITS for name in hashes], dtype=np.uint64)
        found: dict[int, list[_Entry]] = {}
        for segment in self._segments:
            # Of few ids, numpy's functions around these methods take as long as the methods.
            places = segment.hashes.searchsorted(wanted)
            for number in (segment.hashes.take(places, mode="clip") == wanted).nonzero()[0].tolist():
                found.setdefault(number, []).extend(segment.entries(int(places[number]), hashes[number], self._clocks))
        return found


@dataclass(frozen=True, slots=True)
class _Segment:
    """Ids that are no longer young, sorted by hash."""

    hashes: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.uint64]
    slices: npt.NDArray[np.uint16]
    extras: npt.NDArray[np.uint8]
    checks: npt.NDArray[np.uint8]

    def select(self, chosen: "npt.NDArray[np.bool_] | npt.NDArray[np.intp]") -> "_Segment":
        """Return the ids that a mask or an order chooses."""
        return _Segment(
            self.hashes[chosen], self.positions[chosen], self.slices[chosen], self.extras[chosen], self.checks[chosen]
        )

    def merge(self, other: "_Segment") -> "_Segment":
        """Return both, sorted."""
        both = _Segment(
            np.concatenate((self.hashes, other.hashes)),
            np.concatenate((self.positions, other.positions)),
            np.concatenate((self.slices, other.slices)),
            np.concatenate((self.extras, other.extras)),
            np.concatenate((self.checks, other.checks)),
        )
        return both.sorted()

    def sorted(self) -> "_Segment":
        """Return the ids in the order of their hashes; quick where two sorted runs follow each other."""
        return self.select(np.argsort(self.hashes, kind="stable"))

    def is_worth_merging(self, before: "_Segment") -> bool:
        """Whether it has grown to the size of the segment before it, and both together are not too large."""
        size = len(self.hashes)
        return len(before.hashes) < 2 * size and len(before.hashes) + size <= _MERGE_MAX

    def entries(self, place: int, name: int, clocks: dict[int, int]) -> list[_Entry]:
        """Return the ids of one hash, which stand side by side from a place on; 8 further bits decide among them."""
        found = []
        while place < len(self.hashes) and int(self.hashes[place]) == name >> _EXTRA_BITS:
            if int(self.extras[place]) == name & 0xFF:
                position = int(self.positions[place])
                clock = clocks[position >> OFFSET_BITS]
                age = (clock - int(self.slices[place])) & _SLICE_MASK
                found.append((position, clock - age, int(self.checks[place])))
            place += 1
        return found
