"""Functions of on-demand features in processes of their own: what they do there is their own affair."""

import asyncio
import os
import signal
import time

import pytest

from core.errors import ConfigurationError
from core.metrics import Metrics
from serving.on_demand.function_pool import FunctionPool
from tests.on_demand_kit import (
    ANGRY_USER,
    GROUP,
    LEAVING_USER,
    LOST_USER,
    PER_PRICE,
    PRIVATE,
    RISK,
    SILENT_USER,
    SLOW_USER,
    STUBBORN_USER,
    UNKNOWN_USER,
)

INVALID = ([None], ["INVALID"])


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
async def pool(metrics):
    made = FunctionPool("tests.on_demand_kit:REGISTRY", metrics, processes=1)
    await made.warm_up()
    yield made
    made.close()


async def call(pool: FunctionPool, name: str, *, deadline_ms: int = 5_000, **columns):
    feature = next(feature for feature in GROUP.features if feature.name == name)
    computed = await pool.compute(GROUP.name, feature, columns, deadline_ms=deadline_ms)
    return computed.values, computed.statuses


async def test_a_function_is_called_for_each_row(pool):
    """
    A user's offers are weighed against what they saw; a function that has nothing to say leaves the default.
    """
    found = await call(pool, "seen_per_price", seen=[10, 3, 7], price=[2.5, 0.0, 2])

    assert found == ([4.0, PER_PRICE.default, 3.5], ["PRESENT"] * 3)


async def test_an_error_costs_its_own_row_alone_and_is_counted(pool, metrics):
    """
    One offer of a hundred is broken, and somebody should know.
    """
    counted = ("freshet_on_demand_rows_total", {"feature": "offers:seen_per_price", "outcome": "invalid"})
    before = metrics.registry.get_sample_value(*counted) or 0
    found = await call(pool, "seen_per_price", seen=[10, 10], price=[-1.0, 5.0])

    assert found == ([None, 2.0], ["INVALID", "PRESENT"])
    assert metrics.registry.get_sample_value(*counted) == before + 1


@pytest.mark.parametrize("name", ["leave", "go", "speak", "shout", "eat", "tell", "smuggle"])
async def test_whatever_else_a_function_does_costs_its_own_feature_alone(pool, name):
    """
    It ends its process, takes all memory, or returns what it did not declare; nobody else may notice.
    """
    assert await call(pool, name, seen=[1]) == INVALID

    assert await call(pool, "seen_per_price", deadline_ms=30_000, seen=[1], price=[1.0]) == ([1.0], ["PRESENT"])


async def test_a_function_that_hangs_ends_with_its_process(pool):
    """
    A loop without an end would hold a core for ever, and each answer for as long as its client waits.
    """
    started = time.monotonic()

    assert await call(pool, "hang", deadline_ms=300, seen=[1]) == INVALID

    assert time.monotonic() - started < 5
    assert await call(pool, "seen_per_price", deadline_ms=30_000, seen=[1], price=[1.0]) == ([1.0], ["PRESENT"])


async def fetch(pool: FunctionPool, *users: int, deadline_ms: int = 10_000):
    return await pool.fetch(RISK, {"user_id": list(users)}, deadline_ms=deadline_ms)


async def test_a_source_is_asked_once_for_all_keys_of_an_answer(pool):
    """
    A hundred calls for a hundred users would be a hundred waits.
    """
    found = await fetch(pool, 1, UNKNOWN_USER, 2)

    assert found["score"] == ([0.1, None, 0.2], ["PRESENT", "NOT_FOUND", "PRESENT"])
    assert found["age"] == ([None] * 3, ["NULL_VALUE", "NOT_FOUND", "NULL_VALUE"])


async def test_a_source_that_is_late_is_cancelled_and_keeps_its_process(pool):
    """
    Its client's connections live in the process; a register that is slow for a moment must not cost them.
    """
    (pid,) = (await fetch(pool, 1))["pid"].values

    assert (await fetch(pool, 1, SILENT_USER, deadline_ms=300))["score"] == ([None] * 2, ["INVALID"] * 2)

    assert (await fetch(pool, 1))["pid"].values == [pid]


async def test_a_source_that_does_not_let_itself_be_cancelled_ends_with_its_process(pool):
    """
    It would hold the process for ever, and all who wait for it.
    """
    (pid,) = (await fetch(pool, 1))["pid"].values

    assert (await fetch(pool, STUBBORN_USER, deadline_ms=300))["score"] == INVALID

    assert (await fetch(pool, 1, deadline_ms=30_000))["pid"].values != [pid]


async def test_what_a_source_raises_is_not_told_in_the_log(pool, caplog):
    """
    Errors quote what they are about, and it is what nobody may store.
    """
    assert (await fetch(pool, ANGRY_USER))["score"] == INVALID

    (quoted,) = (await fetch(pool, 1))["band"].values
    assert await call(pool, "quote", band=[quoted]) == INVALID

    assert PRIVATE in quoted
    assert all(record.why.startswith("ValueError in line ") for record in caplog.records)
    assert PRIVATE not in caplog.text + repr([vars(record) for record in caplog.records])


@pytest.mark.parametrize("user", [LEAVING_USER, LOST_USER])
async def test_a_source_that_ends_or_cancels_itself_costs_its_own_values_alone(pool, user):
    """
    What is raised there is raised here: the worker would have ended, with its partitions, or the answer been cut off.
    """
    assert (await fetch(pool, user))["score"] == INVALID

    assert (await fetch(pool, 1))["score"] == ([0.1], ["PRESENT"])


async def test_calls_that_wait_cost_no_process(pool):
    """
    One that was taken back at the process took the process along, and the next ones were late for want of it.
    """
    (pid,) = (await fetch(pool, 1))["pid"].values

    found = await asyncio.gather(*(fetch(pool, SLOW_USER, deadline_ms=300) for _ in range(20)))

    statuses = [one["score"].statuses[0] for one in found]
    assert 2 <= statuses.count("PRESENT") <= 6
    assert (await fetch(pool, 1, deadline_ms=30_000))["pid"].values == [pid]


async def test_processes_that_end_for_nothing_are_replaced(pool):
    """
    The machine had no memory left and took the one that did nothing; pebble's pool never works again after that.
    """
    (pid,) = (await fetch(pool, 1))["pid"].values
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.5)

    for _ in range(3):
        found = await fetch(pool, 1, deadline_ms=30_000)
    assert found["score"] == ([0.1], ["PRESENT"])


async def test_a_call_whose_reader_has_gone_makes_room_for_others(pool):
    """
    Clients give up all the time; what nobody waits for any more must not be computed before what somebody does.
    """
    gone = [asyncio.create_task(fetch(pool, SLOW_USER, deadline_ms=60_000)) for _ in range(250)]
    await asyncio.sleep(0.1)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)

    started = time.monotonic()
    assert (await fetch(pool, 2, deadline_ms=30_000))["score"].values == [0.2]
    assert time.monotonic() - started < 5


OWN = """
from dataclasses import replace
from tests.on_demand_kit import REGISTRY as KIT

REGISTRY = replace(KIT)
"""


async def test_definitions_may_stand_where_the_worker_was_started(tmp_path, monkeypatch, metrics):
    """
    In a directory of one's own every value was INVALID: the worker finds modules there, its children did not.
    """
    (tmp_path / "own_domain.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    made = FunctionPool("own_domain:REGISTRY", metrics, processes=1)
    await made.warm_up()
    try:
        assert await call(made, "seen_per_price", seen=[1], price=[1.0]) == ([1.0], ["PRESENT"])
    finally:
        made.close()


async def test_processes_that_cannot_start_end_the_worker(metrics):
    """
    A worker that is ready and answers INVALID for ever is found by nobody.
    """
    made = FunctionPool("no_such_module:REGISTRY", metrics, processes=1)
    try:
        with pytest.raises(ConfigurationError, match="does not start"):
            await made.warm_up()
    finally:
        made.close()
