"""Functions of on-demand features in processes of their own: what they do there is their own affair."""

import asyncio
import time

import pytest

from core.metrics import Metrics
from serving.function_pool import FunctionPool
from tests.on_demand_kit import GROUP, PER_PRICE

INVALID = ([None], ["INVALID"])


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


@pytest.fixture(scope="module")
def pool(metrics):
    made = FunctionPool("tests.on_demand_kit:REGISTRY", metrics, processes=1)
    asyncio.run(made.warm_up())
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


@pytest.mark.parametrize("name", ["leave", "eat", "tell", "smuggle"])
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
