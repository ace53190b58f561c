"""Which event ids were seen lately: a producer's repetition told from a replay (PROTOCOL, P3).

An id keeps the source position at which it was first seen. The same id at the same position is a replay and enters
again; at another position it is a duplicate. Time is the newest record timestamp of the partition, never a clock,
and is cut into slices of an eighth of the horizon, so every decision depends on the applied prefix alone.

Ids of the youngest slice are in a dict, which is quick to add to; a full dict and older slices are sorted arrays of 20
bytes an id: 64 bits of hash, the position (16 bits of partition number, 48 of offset), 16 more bits of hash and a
16-bit check of the payload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from core.errors import FreshetError

SLICES = 8
_SEAL_AT = 1 << 16
_EXTRA_BITS = 16


class Verdict(Enum):
    """What an id turned out to be."""

    FIRST = "first"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class SeenIdsFullError(FreshetError):
    """No room for another id; the partition waits until the limit is raised."""


@dataclass(frozen=True, slots=True)
class _Segment:
    slice_number: int
    hashes: npt.NDArray[np.uint64]
    extras: npt.NDArray[np.uint16]
    positions: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint16]


class SeenIds:
    """Ids of one source in one partition.

    >>> seen = SeenIds(horizon_ms=900_000, ids_max=1000)
    >>> [verdict.value for verdict in seen.judge([7, 7, 7, 7], [10, 10, 11, 12], [1, 1, 1, 2], now_ms=0)]
    ['first', 'first', 'duplicate', 'conflict']
    """

    def __init__(self, *, horizon_ms: int, ids_max: int) -> None:
        self._slice_ms = max(horizon_ms // SLICES, 1)
        self._ids_max = ids_max
        self._now = 0
        self._young: dict[int, tuple[int, int]] = {}
        self._segments: list[_Segment] = []

    def __len__(self) -> int:
        return len(self._young) + sum(len(segment.hashes) for segment in self._segments)

    def judge(
        self, hashes: Sequence[int], positions: Sequence[int], checks: Sequence[int], *, now_ms: int
    ) -> list[Verdict]:
        """Decide for a run of ids, and enter those that are new.

        Args:
            hashes: 80-bit hashes of (event id, entity key).
            positions: Source positions, ``partition << 48 | offset``.
            checks: 16-bit checks of the payloads.
            now_ms: Newest record timestamp of the partition up to and including this run; it never falls.

        Raises:
            SeenIdsFullError: The run does not fit; nothing was entered.
        """
        self._advance(now_ms // self._slice_ms)
        if len(self) + len(hashes) > self._ids_max:
            raise SeenIdsFullError(
                f"{len(self)} event ids are remembered, the limit is {self._ids_max}: "
                f"raise the source's dedupe_ids_max or shorten its dedupe horizon"
            )
        old = self._find_sealed(hashes)
        verdicts = []
        for number, (name, position, check) in enumerate(zip(hashes, positions, checks, strict=True)):
            known = self._young.get(name) or old.get(number)
            if known is None:
                self._young[name] = (position, check)
                verdicts.append(Verdict.FIRST)
            elif known[0] == position:
                verdicts.append(Verdict.FIRST)
            else:
                verdicts.append(Verdict.DUPLICATE if known[1] == check else Verdict.CONFLICT)
        if len(self._young) >= _SEAL_AT:
            self._seal()
        return verdicts

    def _advance(self, now: int) -> None:
        if now <= self._now:
            return
        if self._young:
            self._seal()
        self._now = now
        self._segments = [segment for segment in self._segments if segment.slice_number >= now - SLICES]

    def _seal(self) -> None:
        names = sorted(self._young)
        entries = [self._young[name] for name in names]
        self._segments.append(
            _Segment(
                self._now,
                np.array([name >> _EXTRA_BITS for name in names], dtype=np.uint64),
                np.array([name & 0xFFFF for name in names], dtype=np.uint16),
                np.array([position for position, _ in entries], dtype=np.uint64),
                np.array([check for _, check in entries], dtype=np.uint16),
            )
        )
        self._young = {}

    def _find_sealed(self, hashes: Sequence[int]) -> dict[int, tuple[int, int]]:
        if not self._segments or not hashes:
            return {}
        wanted = np.array([name >> _EXTRA_BITS for name in hashes], dtype=np.uint64)
        found: dict[int, tuple[int, int]] = {}
        for segment in self._segments:
            places = np.searchsorted(segment.hashes, wanted)
            places[places == len(segment.hashes)] = 0
            for number in np.flatnonzero(segment.hashes[places] == wanted).tolist():
                entry = self._match(segment, int(places[number]), hashes[number])
                if entry is not None and number not in found:
                    found[number] = entry
        return found

    @staticmethod
    def _match(segment: _Segment, place: int, name: int) -> tuple[int, int] | None:
        # Equal 64-bit hashes stand side by side; the 16 further bits decide among them.
        while place < len(segment.hashes) and int(segment.hashes[place]) == name >> _EXTRA_BITS:
            if int(segment.extras[place]) == name & 0xFFFF:
                return int(segment.positions[place]), int(segment.checks[place])
            place += 1
        return None
