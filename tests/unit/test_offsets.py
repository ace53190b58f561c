from hypothesis import given, settings
from hypothesis import strategies as st

from core.offsets import OwnedOffsets

MODEST = settings(max_examples=150, derandomize=True, deadline=None)
STEPS = st.lists(
    st.tuples(st.just("deliver"), st.sampled_from("pq"), st.integers(1, 4))
    | st.tuples(st.just("finish"), st.integers(0, 9), st.just(0))
    | st.tuples(st.sampled_from(["commit", "forget"]), st.just(0), st.just(0)),
    max_size=30,
)


class NaiveOffsets:
    """Remembers every run and looks at all of them each time."""

    def __init__(self) -> None:
        self.runs: dict[str, list[list]] = {"p": [], "q": []}
        self.committed: dict[str, int] = {}

    def positions(self) -> dict[str, int]:
        found = {}
        for partition, runs in self.runs.items():
            done = 0
            while done < len(runs) and runs[done][1]:
                done += 1
            if done and runs[done - 1][0] > self.committed.get(partition, -1):
                found[partition] = runs[done - 1][0]
        return found


@given(STEPS)
@MODEST
def test_nothing_that_is_unfinished_is_ever_passed(steps):
    """
    An offset that is committed too far loses the events between; one that is not committed repeats them all.
    """
    owned, naive = OwnedOffsets[str](), NaiveOffsets()
    handed_out, ends = [], {"p": 0, "q": 0}
    for what, which, size in steps:
        match what:
            case "deliver":
                # Logs have holes: the end moves on by more than the records that were delivered.
                ends[which] += size + 1
                run = [ends[which], False]
                naive.runs[which].append(run)
                handed_out.append((owned.deliver(which, ends[which], size), run))
            case "finish" if handed_out:
                delivery, run = handed_out.pop(which % len(handed_out))
                owned.finish(delivery)
                run[1] = True
            case "commit":
                naive.committed |= naive.positions()
                owned.committed(owned.positions())
            case "forget":
                owned.forget()
                naive = NaiveOffsets()

        assert owned.positions() == naive.positions()
        assert owned.any_outstanding == any(not run[1] for runs in naive.runs.values() for run in runs)


def test_a_run_from_before_a_rebalance_moves_nothing():
    """
    Its partition may belong to another worker by now, which has committed something else.
    """
    owned = OwnedOffsets[str]()
    old = owned.deliver("p", 10, 5)
    owned.forget()
    new = owned.deliver("p", 30, 5)

    owned.finish(old)

    assert owned.positions() == {}
    assert owned.outstanding("p") == 1
    owned.finish(new)
    assert owned.positions() == {"p": 30}


def test_a_run_that_waits_holds_back_those_behind_it():
    """
    They are done, but who restarts must read the first again, and so them too.
    """
    owned = OwnedOffsets[str]()
    runs = [owned.deliver("p", end, 1) for end in (1, 2, 3)]
    owned.finish(runs[2])
    owned.finish(runs[1])

    assert (owned.positions(), owned.outstanding("p"), owned.any_outstanding) == ({}, 3, True)

    owned.finish(runs[0])

    assert (owned.positions(), owned.outstanding("p"), owned.any_outstanding) == ({"p": 3}, 0, False)


def test_the_finished_offset_is_known_before_anything_finished():
    """
    Lag is told from it, and readiness from lag.
    """
    owned = OwnedOffsets[str]()
    assert owned.finished("p", default=7) == 7

    run = owned.deliver("p", 12, 4)
    assert owned.finished("p", default=7) == 8

    owned.finish(run)
    assert owned.finished("p", default=7) == 12


def test_joined_runs_are_one_run_that_is_finished_with_its_last():
    """
    Of a thousand runs that wait for one flush a thousand deliveries would be kept, and their partition not be read.
    """
    owned = OwnedOffsets[str]()
    first, second, third = (owned.deliver("p", end, 10) for end in (10, 20, 30))

    owned.join(first, second)

    assert (owned.outstanding("p"), owned.finished("p", default=7)) == (2, 0)
    owned.finish(third)
    assert owned.positions() == {}
    owned.finish(second)
    assert owned.positions() == {"p": 30}


def test_runs_from_before_a_rebalance_are_not_joined():
    """
    They are forgotten; what has their place now is somebody else's.
    """
    owned = OwnedOffsets[str]()
    first, second = owned.deliver("p", 10, 10), owned.deliver("p", 20, 10)
    owned.forget()
    new = owned.deliver("p", 30, 10)

    owned.join(first, second)

    assert (owned.outstanding("p"), new.records) == (1, 10)
