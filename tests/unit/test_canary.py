"""Canaries: how long an event takes, seen as a reader sees it."""

import asyncio
import json
from dataclasses import replace

import pytest

from core.check import check_registry
from core.definitions import (
    Count,
    FeatureGroup,
    OneOf,
    Registry,
    ServingPolicy,
    Source,
    Sum,
    WritePolicy,
    aggregate,
    col,
)
from core.errors import BrokerError
from core.plans import plan_group
from core.windows import hours, minutes
from serving.canary import Canaries
from serving.tiers.reader import TieredReader
from tests.clock import ManualClock
from tests.serving_kit import REGISTRY, ServingKit

NOW_MS = 1_700_000_000_000
IMPRESSIONS = REGISTRY.sources["impressions"]
USER = REGISTRY.entities["user"]
NOBODY = 999_999_999
CANARY = {"user_id": NOBODY, "video_id": NOBODY, "tab": 1, "watch_ms": 1, "duration_ms": 1}
SOURCE = replace(IMPRESSIONS, canary=CANARY)


def group(name, source, **more) -> FeatureGroup:
    feature = aggregate("seen", source, Count(), over=(hours(1),))
    return FeatureGroup(name, entity=USER, owner="tests", features=(feature,), **more)


def long_views(name="long_views", **more) -> FeatureGroup:
    """A group that takes nothing of the canary."""
    features = (
        aggregate("long_views", SOURCE, Count(), where=col("watch_ms") > 10_000, over=(hours(1),)),
        aggregate("far_tabs", SOURCE, Sum(col("tab")), where=col("tab") > 5, over=(hours(1),)),
    )
    return FeatureGroup(name, entity=USER, owner="tests", features=features, **more)


WATCHED = Registry(
    groups=(
        group("fast", SOURCE),
        group("slow", SOURCE, writing=WritePolicy.through(every=minutes(10))),
        group("held", SOURCE, serving=ServingPolicy(tier="local")),
        long_views(),
    ),
)


@pytest.fixture
def kit():
    return ServingKit(ManualClock(NOW_MS), registry=WATCHED)


def keys_of(_topic: str, event: bytes, _time_ms: int) -> list[tuple[str, list[str]]]:
    return [("user", [f"i{json.loads(event)['user_id']}"])]


def canaries(kit: ServingKit, send, *, seen_s=5.0, registry=WATCHED) -> Canaries:
    reader = TieredReader(local=None, cache=kit.cache, record=kit.record, clock=kit.clock, metrics=kit.metrics)
    return Canaries(
        registry, plans=kit.plans, numbers=kit.numbers, keys_of=keys_of, send=send, reader=reader,
        clock=kit.clock, metrics=kit.metrics, every_s=0.01, seen_s=seen_s,
    )  # fmt: skip


async def test_a_canary_is_timed_until_a_read_knows_of_it(kit):
    """
    What is measured inside of the worker says nothing about Kafka, stores and caches.
    """
    sent = []

    async def send(topic, events) -> None:
        sent.append((topic, json.loads(events[0][1])))
        await kit.take(topic, json.loads(events[0][1]))

    await canaries(kit, send).fly(SOURCE)

    ((topic, event),) = sent
    assert (topic, event["user_id"], event["time_ms"]) == ("impressions", NOBODY, NOW_MS)
    assert event["event_id"].startswith("canary-")
    assert kit.metric("freshet_freshness_seconds_count", group="fast") == 1
    # Their rows are late because they asked for that.
    assert not kit.metric("freshet_freshness_seconds_count", group="slow")
    assert not kit.metric("freshet_freshness_seconds_count", group="held")


async def test_a_canary_that_does_not_come_is_counted(kit):
    """
    A pipeline that stands still has no slow events, it has none.
    """

    async def lose(topic, events) -> None: ...

    async def fail(topic, events) -> None:
        raise BrokerError("it is away")

    await canaries(kit, lose, seen_s=0.05).fly(SOURCE)
    await canaries(kit, fail).fly(SOURCE)

    assert kit.metric("freshet_canaries_lost_total", group="fast") == 2


async def test_an_older_event_of_the_same_key_is_not_the_canary(kit):
    """
    The one from five seconds ago would say that everything is fast.
    """
    await kit.take("impressions", {**CANARY, "event_id": "before", "time_ms": NOW_MS - 5_000})

    async def lose(topic, events) -> None: ...

    await canaries(kit, lose, seen_s=0.05).fly(SOURCE)

    assert kit.metric("freshet_canaries_lost_total", group="fast") == 1


async def test_a_group_that_takes_nothing_of_the_canary_has_not_lost_it(kit):
    """
    Whoever is called at night because of a condition in a definition turns the alarm off.
    """

    async def send(topic, events) -> None:
        await kit.take(topic, json.loads(events[0][1]))

    await canaries(kit, send, seen_s=0.05).fly(SOURCE)

    assert kit.metric("freshet_freshness_seconds_count", group="fast") == 1
    assert kit.metrics.registry.get_sample_value("freshet_canaries_lost_total", {"group": "long_views"}) is None


async def test_each_worker_looks_for_its_own_canary():
    """
    A worker whose canaries never come must not take those of another for them, whose clock may be ahead.
    """
    source = replace(SOURCE, canary={**CANARY, "user_id": OneOf(range(NOBODY, NOBODY + 1_000_000))})
    registry = Registry(groups=(group("fast", source),))
    kit = ServingKit(ManualClock(NOW_MS), registry=registry)

    async def lose(topic, events) -> None:
        for number in range(10):
            user_id = NOBODY + number
            await kit.take(
                topic, {**CANARY, "user_id": user_id, "event_id": f"theirs-{number}", "time_ms": NOW_MS + 50}
            )

    await canaries(kit, lose, seen_s=0.05, registry=registry).fly(source)

    assert kit.metric("freshet_canaries_lost_total", group="fast") == 1


async def test_canaries_are_sent_again_and_again(kit):
    """
    One says how it is now.
    """
    flown, third = [], asyncio.Event()

    async def send(topic, events) -> None:
        flown.append(topic)
        await kit.take(topic, json.loads(events[0][1]))
        if len(flown) == 3:
            third.set()

    running = asyncio.create_task(canaries(kit, send).run())
    await asyncio.wait_for(third.wait(), timeout=5)
    running.cancel()


def canary_problems(source: Source) -> list[str]:
    return [problem.reason for problem in check_registry(Registry(groups=(group("fast", source),)))]


def test_a_canary_that_is_no_event_is_told():
    """
    It would be buried as a dead letter, every five seconds.
    """
    assert canary_problems(SOURCE) == []
    (told,) = canary_problems(replace(SOURCE, canary={**CANARY, "user_id": -1, "tab": "first"}))
    assert told.startswith(
        "it is no Impression: user_id: Input should be greater than or equal to 0; tab: Input should be"
    )
    assert "it is no JSON" in canary_problems(replace(SOURCE, canary={**CANARY, "tab": object()}))[0]
    assert canary_problems(replace(SOURCE, canary={**CANARY, "event_id": "mine"})) == ["event_id is in it"]


def test_a_canary_that_a_group_takes_nothing_of_is_told_with_the_conditions():
    """
    The group would be watched by nobody, and its owner would think that it is.
    """
    fast, slow = group("fast", SOURCE), long_views("slow", writing=WritePolicy.through(every=minutes(10)))
    assert check_registry(Registry(groups=(fast, slow))) == []
    (told,) = check_registry(Registry(groups=(fast, long_views())))
    assert (told.where, told.severity) == ("source impressions, canary", "warning")
    assert told.reason == (
        "the group long_views takes nothing of it, so it is not watched: long_views's where is (watch_ms > 10000); "
        "far_tabs's where is (tab > 5)"
    )
    taken = replace(SOURCE, canary={**CANARY, "watch_ms": 10_001})
    features = tuple(replace(feature, source=taken) for feature in long_views().features)
    assert check_registry(Registry(groups=(replace(long_views(), features=features),))) == []


def test_a_canary_that_may_have_several_keys_is_looked_at_at_both_ends():
    """
    The last of a thousand keys may be more than the model allows.
    """

    def told(users) -> list[str]:
        return canary_problems(replace(SOURCE, canary={**CANARY, "user_id": OneOf(users)}))

    assert told(range(NOBODY, NOBODY + 1_000)) == []
    assert told(range(0, -1_000, -1))[0].startswith("it is no Impression: user_id")
    assert told(()) == ["user_id is one of no values"]


def test_what_depends_on_a_canarys_time_is_taken_for_granted():
    """
    Its time is another each time, so nothing can be said of it beforehand.
    """
    feature = aggregate("new", SOURCE, Count(), where=col("time_ms") > NOW_MS, over=(hours(1),))
    fresh = FeatureGroup("fresh", entity=USER, owner="tests", features=(feature,))
    assert check_registry(Registry(groups=(fresh,))) == []


def test_a_canary_is_no_part_of_what_a_group_means():
    """
    To begin all rows anew because somebody wants to measure would be a bad bargain.
    """
    assert plan_group(group("fast", SOURCE)).fingerprint == plan_group(group("fast", IMPRESSIONS)).fingerprint
