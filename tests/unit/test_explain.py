"""Explain: what is told of a served number is true of that number, tile by tile."""

import asyncio
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from core.aggregations import (
    AGGREGATIONS,
    Aggregation,
    ApproxDistinct,
    ApproxPercentile,
    ApproxTopK,
    Last,
    LastN,
    Latest,
    Mean,
    TopK,
)
from core.definitions import ALL_TIME, FeatureGroup, Registry, aggregate, col
from core.errors import StoreError
from core.plans import plan_group
from core.row_size import ROW_BYTES_MAX
from core.windows import days
from features.videos import IMPRESSIONS, USER
from serving.explain.explainer import parse_explain
from serving.models import Explanation
from tests.clock import ManualClock
from tests.serving_kit import NOW_MS, FailingStore, ServingKit, click, impression, visit

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


async def explain(client, feature: str, **key: Any) -> Explanation:
    async with client.get("/explain", params={"feature": feature, **key}) as answer:
        assert answer.status == 200, await answer.text()
        return Explanation.model_validate_json(await answer.read())


async def refused(client, query: str) -> tuple[int, str]:
    async with client.get(f"/explain{query}") as answer:
        content = await answer.json()
        return answer.status, content if isinstance(content, str) else content["detail"]


async def served(client, feature: str, **key: Any) -> tuple[Any, str, int]:
    request = {"features": [feature], "entities": {name: [value] for name, value in key.items()}}
    async with client.post("/get-online-features", json=request) as answer:
        content = await answer.json()
    result = content["results"][-1]
    return result["values"][0], result["statuses"][0], content["metadata"]["instant_ms"]


# -- the explained value is the served value


_events = st.lists(
    st.tuples(
        st.sampled_from(["impressions", "clicks"]),
        st.integers(0, 9 * DAY_MS),
        st.integers(1, 3),
        st.integers(0, 20_000),
    ),
    max_size=25,
)
_waits = st.lists(st.sampled_from([0, 1, MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, DAY_MS, 8 * DAY_MS]), max_size=4)
_names = [
    "user_engagement:impressions_1h",
    "user_engagement:ctr_7d",
    "user_engagement:watch_s_1d",
    "user_taste:last_videos_7d",
    "user_taste:mean_watch_s_7d",
    "user_taste:longest_watch_s_7d",
    "user_taste:impressions_all",
    "user_taste:tab",
    "user_state:last_tab",
]


@settings(max_examples=20, deadline=None)
@given(events=_events, waits=_waits, keeps_copies=st.booleans())
def test_the_explained_value_is_the_value_that_a_read_gives_at_that_instant(events, waits, keeps_copies):
    """
    An explanation of another number than the one that was served sends whoever is on call after a ghost.
    """

    async def play() -> None:
        clock = ManualClock(NOW_MS)
        kit = ServingKit(clock, keeps_copies=keeps_copies)
        for topic, age_ms, video, watch_ms in sorted(events, key=lambda event: -event[1]):
            at_ms = NOW_MS - age_ms
            event = (
                impression(at_ms, video=video, watch_ms=watch_ms)
                if topic == "impressions"
                else click(at_ms, video=video)
            )
            await kit.take(topic, event, record_time_ms=at_ms)
        async with TestClient(TestServer(kit.web_app())) as client:
            for wait_ms in (0, *waits):
                clock.advance(wait_ms)
                for name in _names:
                    explanation = await explain(client, name, user_id=1)
                    told = explanation.value, explanation.status, explanation.instant_ms
                    assert told == await served(client, name, user_id=1)
                    _adds_up(kit, explanation)

    asyncio.run(play())


def _adds_up(kit: ServingKit, explanation: Explanation) -> None:
    """The tiles that are said to be in the window make the merged state, and that makes the value."""
    group, name = explanation.feature.split(":")
    plan = kit.plans[group]
    feature = next(feature for feature in plan.features if feature.name == name)
    inside = [tile for tile in explanation.tiles if tile.in_window]
    slots = [feature.slot] if feature.denominator is None else [feature.slot, feature.denominator]
    results = []
    for place, slot in enumerate(slots):
        aggregation = plan.resolutions[feature.resolution].slots[slot].aggregation
        states = [tile.parts[place].state for tile in inside]
        merged = reduce(aggregation.merge, states) if states else aggregation.zero()
        assert explanation.merged[place].result == aggregation.result(merged)
        results.append(aggregation.result(merged))
    if explanation.status in ("PRESENT", "NULL_VALUE"):
        value = results[0] if len(results) == 1 else (results[0] / results[1] if results[1] else None)
        assert explanation.value == (feature.default if value is None else value)
    for tile in inside:
        if tile.start_ms is not None:
            assert explanation.window.start_ms <= tile.start_ms < tile.end_ms <= explanation.window.end_ms


# -- what it tells


async def test_tiles_tell_their_range_and_what_they_add(kit, client):
    """
    "Why is it 3?" is answered by when the three came, and by what has just left the hour.
    """
    for age_ms in (65 * MINUTE_MS, 50 * MINUTE_MS, 50 * MINUTE_MS, 0):
        await kit.take("impressions", impression(NOW_MS - age_ms), record_time_ms=NOW_MS - age_ms)

    explanation = await explain(client, "user_engagement:impressions_1h", user_id=1)

    assert explanation.value == 3
    assert [(tile.in_window, tile.parts[0].state) for tile in explanation.tiles] == [(False, 1), (True, 2), (True, 1)]
    assert {tile.end_ms - tile.start_ms for tile in explanation.tiles} == {5 * MINUTE_MS}
    assert explanation.window.start_ms <= NOW_MS - HOUR_MS < explanation.window.start_ms + 5 * MINUTE_MS
    assert explanation.why == "2 of the 3 tiles that the row keeps are in the window; the value is what that makes."


async def test_a_change_is_explained_by_both_of_its_windows(kit, client):
    """
    "Why has it doubled?" is answered by how much that was, in the hour and in the day.
    """
    for age_ms in (0, 1, 30 * MINUTE_MS, 5 * HOUR_MS, 9 * HOUR_MS):
        await kit.take("impressions", impression(NOW_MS - age_ms, video=4), record_time_ms=NOW_MS - age_ms)
    name = "video_popularity:impressions_change_1h"

    explanation = await explain(client, name, video_id=4)
    unknown = await explain(client, name, video_id=5)

    assert (explanation.value, explanation.status, explanation.instant_ms) == await served(client, name, video_id=4)
    assert explanation.value == 3 / (5 / 24) - 1
    assert [(part.name, part.result) for part in explanation.merged] == [("impressions_1h", 3), ("impressions_1d", 5)]
    assert sum(tile.parts[0].result for tile in explanation.tiles if tile.in_window) == 3
    assert (unknown.value, unknown.status) == (None, "NOT_FOUND")


async def test_states_that_are_no_numbers_are_shown_in_plain_json(kit, client):
    """
    A table of counts per value is what a top list was made of, and has to be read to be believed.
    """
    for number, tab in enumerate((1, 0, 1)):
        await kit.take("impressions", impression(NOW_MS - number, tab=tab))

    explanation = await explain(client, "user_taste:top_tabs_7d", user_id=1)

    assert explanation.value == [1, 0]
    (tile,) = explanation.tiles
    assert (tile.parts[0].state, tile.parts[0].result, tile.parts[0].items) == ({"1": 2, "0": 1}, [1, 0], 2)


_EACH = [*(kind(col("tab")) for kind in AGGREGATIONS), ApproxPercentile(col("tab"), percents=(50, 90))]


async def test_a_number_of_every_aggregation_can_be_explained():
    """
    A sketch is no JSON: counts of different values were served, and nobody could ask why.
    """
    features = [
        aggregate(f"it_{number}", IMPRESSIONS, each, over=(days(1), ALL_TIME)) for number, each in enumerate(_EACH)
    ]
    features = [replace(one, over=(ALL_TIME,)) if isinstance(one.aggregation, Latest) else one for one in features]
    group = FeatureGroup("every", entity=USER, owner="tests", features=tuple(features), row_bytes_max=ROW_BYTES_MAX)
    kit = ServingKit(ManualClock(NOW_MS), registry=Registry((group,)))
    for number in range(3):
        await kit.take("impressions", impression(NOW_MS - number * HOUR_MS, tab=number % 2))

    async with TestClient(TestServer(kit.web_app())) as client:
        for name in (feature.name for feature in plan_group(group).features):
            explanation = await explain(client, f"every:{name}", user_id=1)

            assert explanation.value == (await served(client, f"every:{name}", user_id=1))[0]
            assert explanation.merged[0].result == explanation.value
            assert any(tile.in_window for tile in explanation.tiles)


@pytest.mark.parametrize(
    ("aggregation", "items"),
    [
        (LastN(col("tab")), 3), (TopK(col("tab"), n=1), 3), (ApproxTopK(col("tab"), n=1), 3), (Mean(col("tab")), None),
        (ApproxPercentile(col("tab")), None), (Last(col("tab")), None), (ApproxDistinct(col("tab")), None),
    ],
    ids=lambda case: case.text if isinstance(case, Aggregation) else None,
)  # fmt: skip
async def test_the_values_of_a_state_are_counted_not_its_parts(aggregation, items):
    """
    The page draws bars of them: each tile of a top list was as high as the others, for its state has two parts.
    """
    group = FeatureGroup(
        "it", entity=USER, owner="tests", features=(aggregate("it", IMPRESSIONS, aggregation, over=(days(1),)),)
    )
    kit = ServingKit(ManualClock(NOW_MS), registry=Registry((group,)))
    for number in range(3):
        await kit.take("impressions", impression(NOW_MS - number, tab=number))

    async with TestClient(TestServer(kit.web_app())) as client:
        explanation = await explain(client, "it:it_1d", user_id=1)

    assert [part.items for part in explanation.merged] == [items]
    assert [tile.parts[0].items for tile in explanation.tiles] == [items]


async def test_an_explanation_names_definition_version_row_and_age(kit, client):
    """
    An owner to call, a version to compare, a position to look up: what an operator writes into the incident.
    """
    await kit.take("impressions", impression(NOW_MS - 2_000, user=5))
    kit.clock.advance(3_000)

    explanation = await explain(client, "user_engagement:ctr_1h", user_id=5)

    definition = explanation.definition
    assert (definition.owner, definition.text, definition.window, definition.default) == (
        "home-feed", "clicks / impressions", "1h", 0.0,
    )  # fmt: skip
    assert (explanation.version.number, explanation.version.fingerprint) == (
        1, kit.plans["user_engagement"].fingerprint.hex(),
    )  # fmt: skip
    assert explanation.key == {"user_id": 5}
    assert (explanation.age_ms, explanation.as_of_ms) == (5_000, NOW_MS)
    assert (explanation.row.topic, explanation.row.offset, explanation.row.epoch) == ("freshet.user", 0, 0)
    assert explanation.row.newest_event_ms == NOW_MS - 2_000
    assert [part.name for part in explanation.merged] == ["clicks", "impressions"]


async def test_the_tier_that_a_row_came_from_is_told(kit):
    """
    Whether a number is old in this process, in Redis or in the record are three different nights.
    """
    await kit.take("impressions", impression(NOW_MS))
    await kit.take("visits", visit(NOW_MS, "ulm"))
    copies = ServingKit(kit.clock, keeps_copies=True)
    await copies.take("impressions", impression(NOW_MS))
    tiers = {}
    async with TestClient(TestServer(kit.web_app())) as client:
        tiers["cache"] = (await explain(client, "user_taste:tab", user_id=1)).tier
        tiers["around"] = (await explain(client, "city_around:visits_1h", city="ulm")).tier
        tiers["nothing"] = (await explain(client, "user_taste:tab", user_id=2)).tier
    async with TestClient(TestServer(copies.web_app())) as client:
        first = await explain(client, "user_taste:tab", user_id=1)
        copies.clock.advance(4_000)
        second = await explain(client, "user_taste:tab", user_id=1)

    assert tiers == {"cache": "cache", "around": "record", "nothing": None}
    assert (first.tier, first.copy_age_ms, second.tier, second.copy_age_ms) == ("cache", 0, "local", 4_000)


async def test_an_empty_list_is_explained_as_it_is_served(kit):
    """
    A worker that serves null for an empty list explained the list, which nobody was served.
    """
    await kit.take("impressions", impression(NOW_MS))
    wanted = [("user_taste:last_videos_7d", 1), ("user_taste:last_videos_7d", 2)]
    async with TestClient(TestServer(kit.web_app(empty_lists=False))) as client:
        told = [await explain(client, name, user_id=user) for name, user in wanted]
        expected = [await served(client, name, user_id=user) for name, user in wanted]

    assert [(one.value, one.status) for one in told] == [one[:2] for one in expected]
    assert [one.value for one in told] == [None, None]


async def test_every_status_has_its_reason(kit, client):
    """
    A null in a model's input is a question at night; the sentence is the answer.
    """
    await kit.take("impressions", impression(NOW_MS, user=1), impression(NOW_MS, user=2))
    await kit.take("visits", visit(NOW_MS, "ulm"))
    kit.clock.advance(2 * HOUR_MS)
    told = {
        name: await explain(client, name, **key)
        for name, key in {
            "user_state:last_tab": {"user_id": 1},
            "user_taste:last_liked_video_7d": {"user_id": 1},
            "user_engagement:ctr_1h": {"user_id": 1},
            "user_engagement:clicks_1h": {"user_id": 77},
            "city_around:visits_1h": {"city": "ulm"},
        }.items()
    }

    assert {name: one.status for name, one in told.items()} == {
        "user_state:last_tab": "OUTSIDE_MAX_AGE",
        "user_taste:last_liked_video_7d": "NULL_VALUE",
        "user_engagement:ctr_1h": "PRESENT",
        "user_engagement:clicks_1h": "NOT_FOUND",
        "city_around:visits_1h": "NOT_FOUND",
    }
    reasons = [one.why for one in told.values()]
    for reason, part in zip(
        reasons,
        [
            "newest event is 2 h old, and user_state is served up to a max_age of 1 h",
            "the feature has no default",
            "so the default is served",
            "no event of impressions, clicks, conversions has touched it",
            "all of its windows have emptied since",
        ],
        strict=True,
    ):
        assert part in reason


async def test_a_row_that_emptied_a_moment_ago_says_so():
    """
    Between a row's end and its removal from every copy, "no row" would be wrong, and its old value too.
    """
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    await kit.take("visits", visit(NOW_MS, "ulm"))
    async with TestClient(TestServer(kit.web_app())) as client:
        expires_at_ms = (await explain(client, "city_around:visits_1h", city="ulm")).row.expires_at_ms
        kit.clock.advance(expires_at_ms - NOW_MS - 5_000)
        before = await explain(client, "city_around:visits_1h", city="ulm")
        kit.clock.advance(10_000)
        after = await explain(client, "city_around:visits_1h", city="ulm")

    assert (before.status, before.value, before.row.expires_at_ms) == ("PRESENT", 1, expires_at_ms)
    assert (after.status, after.value, after.tier) == ("NOT_FOUND", 0, "local")
    assert "last window emptied 5 s ago" in after.why


async def test_a_long_list_is_shown_in_part(kit, client):
    """
    A page must not be made to draw a thousand values in each of twenty tiles.
    """
    await kit.take("clicks", *[click(NOW_MS - number, video=number) for number in range(60)])

    tile = (await explain(client, "user_taste:last_videos_7d", user_id=1)).tiles[0]

    assert tile.parts[0].items == 20
    assert len(tile.parts[0].state) == 20


# -- what can be wrong


async def test_mistakes_are_told_with_what_would_be_right(client):
    """
    Whoever types a URL at night gets it right the second time.
    """
    good = "?feature=user_engagement:clicks_1h"
    for query, status, part in [
        ("", 400, "which one?"),
        ("?feature=", 400, "which one?"),
        ("?feature=clicks", 400, "write group:feature"),
        ("?feature=user_engagment:clicks_1h&user_id=1", 404, "did you mean user_engagement"),
        ("?feature=user_engagement:clicks_2h&user_id=1", 400, "did you mean"),
        (good, 400, "key column 'user_id'"),
        (f"{good}&user_id=abc", 400, "expected an integer"),
        (f"{good}&user_id=1_0", 400, "expected an integer"),
        (f"{good}&user_id={'9' * 5_000}", 400, "expected an integer"),
        (f"{good}&user_id=9999999999999999999", 400, "64 bits"),
        (f"{good}&user_id=1&user_id=2", 400, "given twice"),
        (f"{good}&user_id=1&video_id=2", 400, "no key column"),
        (f"?feature={'x' * 600}:y&user_id=1", 400, "limit is 512"),
        ("?feature=city_direct:note&city=" + "x" * 1_100, 400, "limit is 1024"),
    ]:
        told = await refused(client, query)
        assert told[0] == status, (query[:80], told)
        assert part in told[1], (query[:80], told)


async def test_a_hostile_key_comes_back_as_the_text_that_it_is(kit, client):
    """
    A key that is markup is found under exactly this text, and answered as JSON that no browser runs.
    """
    hostile = '<img src=x onerror="alert(1)">&%"\u202e'
    await kit.take("visits", visit(NOW_MS, hostile, note=hostile))

    async with client.get("/explain", params={"feature": "city_direct:note", "city": hostile}) as answer:
        content = await answer.json()

    assert answer.content_type == "application/json"
    assert (content["key"], content["value"]) == ({"city": hostile}, hostile)


async def test_a_record_that_fails_is_told_as_such(kit):
    """
    "Not found" while the record is down would be a lie that a model believes.
    """
    kit.cache, kit.record = None, FailingStore("record", StoreError("down"))
    async with TestClient(TestServer(kit.web_app())) as client:
        assert (await refused(client, "?feature=user_taste:tab&user_id=1"))[0] == 503


def test_a_key_column_may_be_named_feature():
    """
    Nobody who names a column "feature" should have to know that explanations have a parameter of that name.
    """
    request = parse_explain([("feature", "group:name"), ("feature", "7")])

    assert (request.feature, request.key) == ("group:name", {"feature": "7"})
