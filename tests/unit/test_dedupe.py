import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.dedupe import SLICES, SeenIds, SeenIdsFullError, Verdict

MODEST = settings(max_examples=60, derandomize=True, deadline=None)
HORIZON_MS = 800
SLICE_MS = HORIZON_MS // SLICES
MANY = 60_000

FIRST, DUPLICATE, CONFLICT = Verdict.FIRST, Verdict.DUPLICATE, Verdict.CONFLICT


class NaiveSeen:
    """A dict from id to where, with what and in which slice it was first seen."""

    def __init__(self, slice_ms: int = SLICE_MS) -> None:
        self.slice_ms = slice_ms
        self.known: dict[int, tuple[int, int, int]] = {}

    def judge(self, names, positions, checks, *, now_ms):
        now = now_ms // self.slice_ms
        self.known = {name: entry for name, entry in self.known.items() if entry[2] >= now - SLICES}
        return [self._judge(*update, now) for update in zip(names, positions, checks, strict=True)]

    def _judge(self, name, position, check, now):
        first_position, first_check, _ = self.known.setdefault(name, (position, check, now))
        if first_position == position:
            return FIRST
        return DUPLICATE if first_check == check else CONFLICT


# Ids that share their first 64 bits and differ in the last 16, and the other way round.
NAMES = st.builds(lambda head, extra: head << 16 | extra, st.integers(0, 3) | st.just(2**64 - 1), st.integers(0, 2))
UPDATES = st.lists(st.tuples(NAMES, st.integers(0, 5), st.integers(0, 1)), max_size=8)
RUNS = st.lists(st.tuples(st.integers(0, 3 * SLICE_MS), UPDATES), max_size=15)


@given(RUNS)
@MODEST
def test_every_verdict_is_that_of_a_plain_dict(runs):
    """
    A verdict that differs loses an event or counts one twice.
    """
    seen, naive, now_ms = SeenIds(horizon_ms=HORIZON_MS, ids_max=1000), NaiveSeen(), 0
    for later_ms, updates in runs:
        now_ms += later_ms
        columns = [list(column) for column in zip(*updates, strict=True)] or [[], [], []]

        assert seen.judge(*columns, now_ms=now_ms) == naive.judge(*columns, now_ms=now_ms)
        assert len(seen) == len(naive.known)


def test_many_ids_are_remembered_exactly():
    """
    Beyond some ids they move from the dict into arrays, and arrays are joined: none may get lost on the way.
    """
    chance = random.Random(7)
    names = [chance.getrandbits(80) for _ in range(MANY)]
    positions = [3 << 48 | number for number in range(MANY)]
    checks = [chance.getrandbits(16) for _ in range(MANY)]
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=MANY)
    for start in range(0, MANY, 5000):
        run = slice(start, start + 5000)
        # The slice changes in the middle, so that both kinds of sealing happen.
        seen.judge(names[run], positions[run], checks[run], now_ms=SLICE_MS if start > MANY // 2 else 0)

    replays = seen.judge(names, positions, checks, now_ms=SLICE_MS)
    elsewhere = [position + 1 for position in positions]
    repetitions = seen.judge(names, elsewhere, checks, now_ms=SLICE_MS)
    conflicts = seen.judge(names, elsewhere, [check ^ 1 for check in checks], now_ms=SLICE_MS)
    strangers = seen.judge([names[0] ^ 1, names[1] ^ 1 << 79], [0, 0], [0, 0], now_ms=9 * SLICE_MS)

    assert set(replays) == {FIRST}
    assert set(repetitions) == {DUPLICATE}
    assert set(conflicts) == {CONFLICT}
    assert strangers == [FIRST, FIRST]


def test_a_replay_enters_again():
    """
    After a crash the same event comes from the same place; it must not be taken for the producer's repetition.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)

    assert seen.judge([1], [17], [5], now_ms=0) == [FIRST]
    assert seen.judge([1, 1], [17, 18], [5, 5], now_ms=0) == [FIRST, DUPLICATE]
    assert seen.judge([1, 1], [17, 18], [5, 5], now_ms=3 * SLICE_MS) == [FIRST, DUPLICATE]


def test_the_first_payload_of_an_id_wins():
    """
    A producer that uses an id twice for different events is told so, by a count.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)

    assert seen.judge([1, 1, 1], [17, 18, 19], [5, 6, 5], now_ms=0) == [FIRST, CONFLICT, DUPLICATE]


@pytest.mark.parametrize("horizon_ms", [1, 7, 8, 9, 800, 807, 900_000])
@pytest.mark.parametrize("entered_ms", [0, 99, 100, 12_345])
def test_an_id_is_remembered_for_its_horizon_and_at_most_two_slices_more(horizon_ms, entered_ms):
    """
    A horizon that ends early lets repetitions in; one that never ends fills the memory.
    """

    def verdict_after(age_ms):
        seen = SeenIds(horizon_ms=horizon_ms, ids_max=10)
        seen.judge([1], [17], [5], now_ms=entered_ms)
        return seen.judge([1], [18], [5], now_ms=entered_ms + age_ms)

    slice_ms = -(-horizon_ms // SLICES)

    assert verdict_after(horizon_ms) == [DUPLICATE]
    assert verdict_after(SLICES * slice_ms + slice_ms + 1) == [FIRST]


def test_time_that_falls_is_ignored():
    """
    Record timestamps are the producers' and go back a little now and then.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)
    seen.judge([1], [17], [5], now_ms=50 * SLICE_MS)

    assert seen.judge([1, 2], [18, 19], [5, 5], now_ms=0) == [DUPLICATE, FIRST]
    assert seen.judge([2], [20], [5], now_ms=57 * SLICE_MS) == [DUPLICATE]


def test_a_full_memory_refuses_new_ids_and_enters_nothing():
    """
    The partition waits and tries the same run again: half of it must not be in already.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=3)
    seen.judge([1, 2], [10, 11], [0, 0], now_ms=0)

    with pytest.raises(SeenIdsFullError, match="2 event ids are remembered, the limit is 3"):
        seen.judge([3, 4], [12, 13], [0, 0], now_ms=0)

    assert len(seen) == 2
    assert seen.judge([3], [99], [0], now_ms=0) == [FIRST]


def test_a_full_memory_still_knows_its_ids():
    """
    A replay adds nothing, so it needs no room; once it was refused, and a partition that was nearly full could not
    be restored.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=3)
    names, positions, checks = [1, 2, 3, 3], [10, 11, 12, 12], [0, 0, 0, 0]
    seen.judge(names, positions, checks, now_ms=0)

    assert seen.judge(names, positions, checks, now_ms=0) == [FIRST] * 4
    assert seen.judge(names, [20, 21, 22, 23], checks, now_ms=2 * SLICE_MS) == [DUPLICATE] * 4


def test_a_full_memory_has_room_again_after_the_horizon():
    """
    The limit is on what is remembered at once, not on what ever was.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=2)
    seen.judge([1, 2], [10, 11], [0, 0], now_ms=0)

    assert seen.judge([3, 4], [12, 13], [0, 0], now_ms=HORIZON_MS + 2 * SLICE_MS) == [FIRST, FIRST]
