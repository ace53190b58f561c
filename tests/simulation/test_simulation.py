"""The pipeline in simulated worlds: its real code, and everything around it drawn from a seed."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.simulation.cache_runs import run_many_caches
from tests.simulation.caches import Sum as CachesSum
from tests.simulation.loop import Process, StuckError, VirtualLoop
from tests.simulation.races import RACES, run_race
from tests.simulation.runs import Sum, run_seeds
from tests.simulation.schedule import KINDS, draw
from tests.simulation.shrink import shrink
from tests.simulation.world import run

SEEDS = range(5_000)
CACHES = 20_000
ORDERS = range(1_500)
STEPS_MIN = 100


def test_no_schedule_leaves_a_wrong_value_a_lost_event_or_a_stale_copy():
    """
    Whatever dies, is late, is lost or comes twice: in the end everything is what a plain computation gives.
    """
    total = Sum()
    for first in SEEDS[::100]:
        total.add(run_seeds(range(first, first + 100)))
        assert total.wrong == {}, f"make simulate SEEDS=1 SEED={next(iter(total.wrong))}"

    assert total.steps_min >= STEPS_MIN
    assert set(total.faults) == set(KINDS)


def test_no_interleaving_of_caches_leaves_an_old_row_or_none():
    """
    Rows are written, filled in by readers, evicted, copied, and late, in every order: in the end everybody is told the
    newest row, and nobody was told an older one after a newer one.
    """
    total = CachesSum()
    for some in run_many_caches(0, CACHES):
        total.add(some)
        assert total.wrong == {}, f"make simulate-caches SEEDS=1 SEED={next(iter(total.wrong))}"

    assert total.interleavings == CACHES
    assert total.steps > CACHES * STEPS_MIN


@pytest.mark.parametrize("race", RACES)
def test_no_order_of_a_race_tells_anybody_what_is_not_so(race):
    """
    A row is written, its reader goes away, a load fails or a process dies, just while the row is being read.
    """
    assert run_race(race, ORDERS) == {}


def test_a_seed_is_the_same_schedule_in_every_process():
    """
    A failure that somebody else cannot repeat is a rumour; Python orders its sets anew in every process.
    """
    script = "from tests.simulation.schedule import draw; from tests.simulation.world import run; print(run(draw(7)))"
    told = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert len(told) == 1
    assert str(run(draw(7)).trace) in told.pop()


def test_a_shrunk_schedule_still_goes_wrong_and_has_nothing_to_spare():
    """
    Who looks for a bug wants the two records and the one kill that it takes, not forty and six.
    """
    schedule = draw(5)
    wanted = schedule.arrivals[3].value

    least = shrink(schedule, lambda one: any(arrival.value == wanted for arrival in one.arrivals))

    assert [arrival.value for arrival in least.arrivals] == [wanted]
    assert (least.faults, least.loss, least.late) == ([], 0.0, 0.0)


def test_a_world_in_which_nothing_is_written_is_right():
    """
    A check that needs events to be satisfied would find fault with a platform that was just set up.
    """
    assert run(replace(draw(1), arrivals=[], faults=[])).wrong == ()


async def _count(seen: list[float], loop: VirtualLoop) -> None:
    for _ in range(3):
        await asyncio.sleep(10)
        seen.append(loop.time())


def test_a_stopped_process_goes_on_late_and_a_killed_one_never():
    """
    A worker that sleeps through its session must meet its successor, or nobody tries the fence.
    """
    loop = VirtualLoop()
    seen: dict[str, list[float]] = {"free": [], "stopped": [], "killed": []}
    processes = {name: Process(name) for name in seen}
    for name, process in processes.items():
        loop.start(process, _count(seen[name], loop))
    loop.later(15, loop.stop_process, processes["stopped"])
    loop.later(15, loop.kill, processes["killed"])
    loop.later(100, loop.resume, processes["stopped"])

    loop.run_until(loop.create_task(asyncio.sleep(200)))

    assert seen == {"free": [10, 20, 30], "stopped": [10, 100, 110], "killed": [10]}


def test_a_world_that_stands_still_is_told():
    """
    A deadlock must be a finding, not a test that never ends.
    """
    loop = VirtualLoop()

    with pytest.raises(StuckError, match="nothing will ever happen"):
        loop.run_until(loop.create_future())
