import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.dedupe import SLICES, SeenIds, SeenIdsFullError, Verdict
from core.versions import OFFSET_BITS

MODEST = settings(max_examples=60, derandomize=True, deadline=None)
HORIZON_MS = 800
SLICE_MS = HORIZON_MS // SLICES
MANY = 60_000

FIRST, DUPLICATE, CONFLICT = Verdict.FIRST, Verdict.DUPLICATE, Verdict.CONFLICT


class NaiveSeen:
    """A dict from id to where, with what and in which slice of its partition's time it was first seen."""

    def __init__(self) -> None:
        self.newest: dict[int, int] = {}
        self.known: dict[int, tuple[int, int, int]] = {}

    def judge(self, names, positions, checks, times, *, partition):
        return [self._judge(*update, partition) for update in zip(names, positions, checks, times, strict=True)]

    def _judge(self, name, position, check, time_ms, partition):
        now = self.newest[partition] = max(self.newest.get(partition, 0), time_ms // SLICE_MS)
        known = self.known.get(name)
        if known is None or self.newest[known[0] >> OFFSET_BITS] - known[2] > SLICES:
            known = self.known[name] = (position, check, now)
        if known[0] == position:
            return FIRST
        return DUPLICATE if known[1] == check else CONFLICT


# Ids that share their first 64 bits and differ in the last 8, and the other way round.
NAMES = st.builds(lambda head, extra: head << 8 | extra, st.integers(0, 3) | st.just(2**64 - 1), st.integers(0, 2))
UPDATES = st.lists(
    st.tuples(NAMES, st.integers(0, 5), st.integers(0, 1), st.integers(-SLICE_MS, 2 * SLICE_MS)), max_size=8
)
RUNS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4 * SLICE_MS), UPDATES), max_size=12)


def judge_one(seen, name, position, check=0, time_ms=0, *, partition=0):
    """Judge a single update."""
    (verdict,) = seen.judge([name], [partition << OFFSET_BITS | position], [check], [time_ms], partition=partition)
    return verdict


@given(RUNS)
@MODEST
def test_every_verdict_is_that_of_a_plain_dict(runs):
    """
    A verdict that differs loses an event or counts one twice.
    """
    seen, naive, newest_ms = SeenIds(horizon_ms=HORIZON_MS, ids_max=1000), NaiveSeen(), [5000, 5000]
    for partition, later_ms, updates in runs:
        newest_ms[partition] += later_ms
        names = [name for name, _, _, _ in updates]
        positions = [partition << OFFSET_BITS | offset for _, offset, _, _ in updates]
        checks = [check for _, _, check, _ in updates]
        times = [newest_ms[partition] + later_ms for _, _, _, later_ms in updates]

        verdicts = seen.judge(names, positions, checks, times, partition=partition)

        assert verdicts == naive.judge(names, positions, checks, times, partition=partition)


@pytest.fixture(scope="module")
def many():
    """Many ids of two partitions, entered in runs: more than fit into the dict, so that arrays are made and merged."""
    chance = random.Random(7)  # noqa: S311  # the same ids every time
    names = [chance.getrandbits(72) for _ in range(MANY)]
    checks = [chance.getrandbits(16) for _ in range(MANY)]
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=MANY + 10)
    for start in range(0, MANY, 500):
        # The second half is of another partition, and four slices later.
        partition, time_ms = (1, 4 * SLICE_MS) if start >= MANY // 2 else (0, 0)
        positions = [partition << OFFSET_BITS | offset for offset in range(start, start + 500)]
        run = slice(start, start + 500)
        seen.judge(names[run], positions, checks[run], [time_ms] * 500, partition=partition)
    return seen, names, checks


@pytest.mark.parametrize(("moved", "flipped", "expected"), [(0, 0, {FIRST}), (1, 0, {DUPLICATE}), (1, 1, {CONFLICT})])
def test_many_ids_are_remembered_exactly(many, moved, flipped, expected):
    """
    Beyond some ids they move from the dict into arrays, and arrays are merged: none may get lost on the way.
    """
    seen, names, checks = many
    for partition, half in ((0, slice(0, MANY // 2)), (1, slice(MANY // 2, MANY))):
        size = len(names[half])
        positions = [partition << OFFSET_BITS | offset + moved for offset in range(half.start, half.stop)]

        verdicts = seen.judge(
            names[half], positions, [check ^ flipped for check in checks[half]], [0] * size, partition=partition
        )

        assert set(verdicts) == expected
    assert len(seen) == MANY


def test_strangers_among_many_ids_are_new(many):
    """
    An id that differs in one bit is another event; to drop it would lose it.
    """
    _, names, _ = many
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=3 * MANY)
    seen.judge(names, list(range(MANY)), [0] * MANY, [0] * MANY, partition=0)
    seen.judge([1], [MANY], [0], [0], partition=0)

    strangers = [name ^ 1 << (number % 72) for number, name in enumerate(names[:2000])]

    assert set(seen.judge(strangers, [0] * 2000, [0] * 2000, [0] * 2000, partition=0)) == {FIRST}


def test_many_ids_are_forgotten_with_their_own_partition(many):
    """
    A partition that is read faster must not make the others forget: their repetitions would count.
    """
    _, names, checks = many
    half = MANY // 2
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=2 * MANY)
    seen.judge(names[:half], list(range(half)), checks[:half], [0] * half, partition=0)
    others = [1 << OFFSET_BITS | offset for offset in range(half)]
    seen.judge(names[half:], others, checks[half:], [0] * half, partition=1)

    judge_one(seen, 1, half, time_ms=100 * SLICE_MS, partition=0)

    assert len(seen) == half + 1
    assert set(seen.judge(names[:half], others, checks[:half], [0] * half, partition=1)) == {FIRST}
    assert set(seen.judge(names[half:], list(range(half)), checks[half:], [0] * half, partition=0)) == {DUPLICATE}


def test_a_replay_enters_again():
    """
    After a crash the same event comes from the same place; it must not be taken for the producer's repetition.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)

    assert judge_one(seen, 1, 17) is FIRST
    assert judge_one(seen, 1, 17) is FIRST
    assert judge_one(seen, 1, 18) is DUPLICATE
    assert judge_one(seen, 1, 17, time_ms=3 * SLICE_MS) is FIRST


def test_the_first_payload_of_an_id_wins():
    """
    A producer that uses an id twice for different events is told so, by a count.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)

    verdicts = seen.judge([1, 1, 1], [17, 18, 19], [5, 6, 5], [0, 0, 0], partition=0)

    assert verdicts == [FIRST, CONFLICT, DUPLICATE]


@pytest.mark.parametrize("horizon_ms", [1, 7, 8, 9, 800, 807, 900_000])
@pytest.mark.parametrize("entered_ms", [0, 99, 100, 12_345])
def test_an_id_is_remembered_for_its_horizon_and_at_most_two_slices_more(horizon_ms, entered_ms):
    """
    A horizon that ends early lets repetitions in (one of 807 ms ended after 800); one that never ends fills the memory.
    """

    def verdict_after(age_ms):
        seen = SeenIds(horizon_ms=horizon_ms, ids_max=10)
        judge_one(seen, 1, 17, time_ms=entered_ms)
        return judge_one(seen, 1, 18, time_ms=entered_ms + age_ms)

    slice_ms = -(-horizon_ms // SLICES)

    assert verdict_after(horizon_ms) is DUPLICATE
    assert verdict_after((SLICES + 2) * slice_ms) is FIRST


def test_time_that_falls_is_ignored():
    """
    Record timestamps are the producers' and go back a little now and then.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=10)
    judge_one(seen, 1, 17, time_ms=50 * SLICE_MS)

    assert judge_one(seen, 1, 18, time_ms=0) is DUPLICATE
    assert judge_one(seen, 2, 19, time_ms=0) is FIRST
    assert judge_one(seen, 2, 20, time_ms=57 * SLICE_MS) is DUPLICATE


@pytest.mark.parametrize("entered", [10, MANY], ids=["young", "sealed"])
@pytest.mark.parametrize("slices", [1 << 16, (1 << 16) + SLICES, 1 << 17])
def test_ids_are_forgotten_over_a_silence_in_which_the_numbers_of_slices_come_round(entered, slices):
    """
    Segments keep 16 bits of them, which is 85 days of the usual horizon, and less of shorter ones: an id that was seen
    before such a silence was a duplicate after it, and its event was lost.
    """
    seen, again = SeenIds(horizon_ms=HORIZON_MS, ids_max=3 * MANY), list(range(entered))
    seen.judge(again, again, [0] * entered, [0] * entered, partition=0)
    others = list(range(MANY, 2 * MANY))

    seen.judge(others, others, [0] * MANY, [slices * SLICE_MS] * MANY, partition=0)

    positions = [2 * MANY + number for number in again]
    assert set(seen.judge(again, positions, [0] * entered, [slices * SLICE_MS] * entered, partition=0)) == {FIRST}
    assert len(seen) == MANY + entered


@pytest.mark.parametrize("names", [[7], [*range(MANY), 7]], ids=["young", "sealed"])
def test_records_without_a_time_are_judged_too(names):
    """
    A producer that sets none sends -1; two events of one id were then an unknown error, which ended the worker again
    after every restart. Found by the fuzz.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=2 * MANY)
    seen.judge(names, list(range(len(names))), [0] * len(names), [-1] * len(names), partition=0)

    assert judge_one(seen, 7, MANY, time_ms=-1) is DUPLICATE
    assert judge_one(seen, 7, MANY, time_ms=HORIZON_MS + 2 * SLICE_MS) is FIRST


def test_a_full_memory_refuses_new_ids():
    """
    An id that is not remembered would let its repetition in; so the partition waits, and says why.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=3)
    run = ([1, 2, 3, 4], [10, 11, 12, 13], [0] * 4, [0] * 4)

    for _ in range(2):
        with pytest.raises(SeenIdsFullError, match="3 event ids are remembered, the limit is 3"):
            seen.judge(*run, partition=0)

    assert len(seen) == 3
    assert seen.judge(*(column[:3] for column in run), partition=0) == [FIRST] * 3


def test_a_full_memory_still_knows_its_ids():
    """
    A replay adds nothing, so it needs no room; once it was refused, and a partition that was nearly full could not
    be restored.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=3)
    names, checks, times = [1, 2, 3, 3], [0] * 4, [0] * 4
    seen.judge(names, [10, 11, 12, 12], checks, times, partition=0)

    assert seen.judge(names, [10, 11, 12, 12], checks, times, partition=0) == [FIRST] * 4
    assert seen.judge(names, [20, 21, 22, 23], checks, times, partition=0) == [DUPLICATE] * 4


def test_a_full_memory_has_room_again_after_the_horizon():
    """
    The run that comes after a silence is the one that moves the time on; refused for lack of room, it waited for ever.
    """
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=2)
    seen.judge([1, 2], [10, 11], [0, 0], [0, 0], partition=0)
    later_ms = HORIZON_MS + 2 * SLICE_MS

    assert seen.judge([2, 3, 4], [12, 13, 14], [0] * 3, [0, later_ms, later_ms], partition=0) == [
        DUPLICATE,
        FIRST,
        FIRST,
    ]


def test_room_is_made_only_of_ids_whose_horizon_is_over():
    """
    An id that is thrown out early to make room lets its repetition in.
    """
    size = 20_000
    names, offsets, zeros = [number << 8 for number in range(size)], list(range(size)), [0] * size
    seen = SeenIds(horizon_ms=HORIZON_MS, ids_max=size)
    seen.judge(names, offsets, zeros, zeros, partition=0)

    with pytest.raises(SeenIdsFullError):
        judge_one(seen, size, size, time_ms=SLICES * SLICE_MS)

    assert set(seen.judge(names, [offset + size for offset in offsets], zeros, zeros, partition=0)) == {DUPLICATE}
    assert judge_one(seen, size, size, time_ms=(SLICES + 1) * SLICE_MS) is FIRST
    assert len(seen) == 1
