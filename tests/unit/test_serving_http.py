"""What a client reads over HTTP: the shape that Feast's clients know, and what every value says of itself."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

import features
from core.definitions import Registry, col, latest
from core.errors import StoreError, StoreTimeoutError
from core.ports import RowKey, StoredRow
from core.versions import version_bytes
from features.videos import IMPRESSIONS
from serving.web.admission import LIMIT_START
from serving.web.answer import Answer
from serving.web.reads import Reads
from tests.clock import ManualClock
from tests.fakes import idle
from tests.serving_kit import NOW_MS, REGISTRY, USER_STATE, FailingStore, ServingKit, click, impression, visit

EPOCH = "1970-01-01T00:00:00Z"
HOUR_MS = 3_600_000


async def read(client, **request: Any) -> dict[str, Any]:
    async with client.post("/get-online-features", json=request) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


def columns(answer) -> dict[str, dict[str, list[Any]]]:
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


async def test_an_answer_has_a_column_per_feature_and_a_value_per_row(kit, client):
    """
    A Feast client reads results[i] as a feature and values[j] as an entity row: anything else mixes users up.
    """
    await kit.take("impressions", impression(NOW_MS - 1_000, user=3), impression(NOW_MS, user=3))
    await kit.take("impressions", impression(NOW_MS, user=5))

    answer = await read(
        client,
        entities={"user_id": [5, 4, 3]},
        features=["user_engagement:impressions_1h", "user_engagement:ctr_1h", "user_taste:longest_watch_s_7d"],
    )

    assert answer["metadata"]["feature_names"] == ["user_id", "impressions_1h", "ctr_1h", "longest_watch_s_7d"]
    assert [result["values"] for result in answer["results"]] == [
        [5, 4, 3],
        [1, 0, 2],
        [0.0, 0.0, 0.0],
        [4.0, None, 4.0],
    ]
    assert all(set(result) == {"values", "statuses", "event_timestamps"} for result in answer["results"])
    assert all(len(column) == 3 for result in answer["results"] for column in result.values())


async def test_features_of_several_groups_are_answered_in_the_order_in_which_they_were_asked_for(client):
    """
    A model that fills its input by position gets what it asked for, not what lies together in a row.
    """
    wanted = [
        "user_taste:tab",
        "user_engagement:watch_s_1d",
        "user_taste:impressions_all",
        "user_engagement:clicks_1h",
    ]

    answer = await read(client, entities={"user_id": [1]}, features=wanted)

    assert answer["metadata"]["feature_names"] == ["user_id", *(name.split(":")[1] for name in wanted)]


async def test_key_columns_of_all_entities_come_first_and_columns_of_the_request_are_left_out(kit, client):
    """
    Feast's clients take the first columns for the join keys; what the request brought along is not the server's to tell.
    """
    await kit.take("impressions", impression(NOW_MS, user=1, video=9, tab=2))

    answer = await read(
        client,
        entities={"price": [1.5, {"any": None}], "tab": [2, 3], "user_id": [1, 1], "video_id": [9, 9], "q": [[], ""]},
        features=[
            "user_tab_engagement:impressions_1h",
            "video_popularity:impressions_5m",
            "user_engagement:impressions_1d",
        ],
    )

    assert answer["metadata"]["feature_names"] == [
        "user_id", "tab", "video_id", "impressions_1h", "impressions_5m", "impressions_1d",
    ]  # fmt: skip
    assert [result["values"] for result in answer["results"]] == [[1, 1], [2, 3], [9, 9], [1, 0], [1, 1], [1, 1]]
    assert answer["results"][0]["statuses"] == ["PRESENT", "PRESENT"]
    assert answer["results"][0]["event_timestamps"] == [EPOCH, EPOCH]


async def test_full_names_carry_the_group(client):
    """
    Two groups may have a feature of one name; a client who reads both asks for full names.
    """
    answer = await read(
        client,
        entities={"user_id": [1], "video_id": [7]},
        features=["user_engagement:impressions_1d", "video_popularity:impressions_1d"],
        full_feature_names=True,
    )

    assert answer["metadata"]["feature_names"] == [
        "user_id", "video_id", "user_engagement__impressions_1d", "video_popularity__impressions_1d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "key", "first", "last"),
    [
        ("home_feed", "user_id", "clicks_1d", "watch_s_deviation_7d"),
        ("video_ranker", "video_id", "clicks_1d", "likes_7d"),
    ],
)
async def test_a_service_answers_all_features_that_it_lists(client, service, key, first, last):
    """
    A model names its service and nothing else; whole groups come in the order of their names, single features after.
    """
    answer = await read(client, entities={key: [1]}, feature_service=service)

    names = answer["metadata"]["feature_names"]
    definition = next(one for one in REGISTRY.services if one.name == service)
    groups = {group.name: group for group in definition.groups}
    wanted = sum(len(feature.over) for group in groups.values() for feature in group.features)
    assert (names[0], names[1], names[-1]) == (key, first, last)
    assert len(names) == 1 + wanted + len(definition.features)


async def test_a_service_wins_over_a_list_of_features(client):
    """
    Feast's clients may send both.
    """
    answer = await read(
        client, entities={"city": ["Bern"]}, feature_service="cities", features=["no_such_group:feature"]
    )

    assert answer["metadata"]["feature_names"] == ["city", "visits_1h", "note"]


async def test_a_version_in_a_reference_is_read_as_the_active_one(kit, client):
    """
    Feast writes group@v2:feature; there is one active version, and it is what is served.
    """
    await kit.take("impressions", impression(NOW_MS))

    answer = await read(client, entities={"user_id": [1]}, features=["user_engagement@v1:impressions_1h"])

    assert columns(answer)["impressions_1h"]["values"] == [1]


async def test_each_value_says_whether_it_is_there(kit, client):
    """
    A model must tell "never seen" from "seen, and there is no value" from "too old to be trusted".
    """
    await kit.take("impressions", impression(NOW_MS, user=1, tab=4))
    kit.clock.advance(HOUR_MS)
    await kit.take("impressions", impression(kit.clock.now_ms(), user=2, tab=5))
    kit.clock.advance(1)

    answer = columns(
        await read(
            client,
            entities={"user_id": [1, 2, 3]},
            features=["user_state:last_tab", "user_taste:last_liked_video_7d", "user_engagement:likes_7d"],
        )
    )

    assert answer["last_tab"]["values"] == [None, 5, None]
    assert answer["last_tab"]["statuses"] == ["OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND"]
    assert answer["last_liked_video_7d"]["values"] == [None, None, None]
    assert answer["last_liked_video_7d"]["statuses"] == ["NULL_VALUE", "NULL_VALUE", "NOT_FOUND"]
    assert answer["likes_7d"]["values"] == [0, 0, 0]
    assert answer["likes_7d"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"]


async def test_a_state_is_served_until_it_is_older_than_its_max_age(kit, client):
    """
    The limit itself is still within it.
    """
    await kit.take("impressions", impression(NOW_MS, user=1, tab=4))
    kit.clock.advance(HOUR_MS)

    answer = columns(await read(client, entities={"user_id": [1]}, features=["user_state:last_tab"]))

    assert answer["last_tab"] == {
        "values": [4], "statuses": ["PRESENT"], "event_timestamps": ["2023-11-14T22:13:20Z"],
    }  # fmt: skip


async def test_a_key_that_nobody_has_seen_has_empty_values_and_defaults(client):
    """
    A new user gets zeros, empty lists and declared defaults, so that a model needs no special case.
    """
    answer = columns(await read(client, entities={"user_id": [-1]}, feature_service="home_feed"))

    values = {name: column["values"][0] for name, column in answer.items()}
    assert {name: values[name] for name in ("impressions_1h", "watch_s_1d", "ctr_7d", "last_videos_7d", "tab")} == {
        "impressions_1h": 0,
        "watch_s_1d": 0.0,
        "ctr_7d": 0.0,
        "last_videos_7d": [],
        "tab": None,
    }
    assert {column["statuses"][0] for name, column in answer.items() if name != "user_id"} == {"NOT_FOUND"}
    assert {column["event_timestamps"][0] for column in answer.values()} == {EPOCH}


async def test_event_timestamps_are_those_of_the_newest_event_of_the_row(kit, client):
    """
    Older Feast clients take them for the time of the data: UTC with Z, fractions only where there are any.
    """
    await kit.take("impressions", impression(NOW_MS - 877, user=1), impression(NOW_MS - 60_000, user=1))
    await kit.take("clicks", click(NOW_MS - 60_000, user=2))

    answer = await read(client, entities={"user_id": [1, 2, 3]}, features=["user_engagement:clicks_1h"])

    assert answer["results"][1]["event_timestamps"] == ["2023-11-14T22:13:19.123Z", "2023-11-14T22:12:20Z", EPOCH]


async def test_an_event_far_in_the_future_does_not_make_its_row_unreadable(kit, client):
    """
    A producer whose records and events are both stamped after the year 9999 had every read of its rows fail: no
    calendar can write such a time.
    """
    far_ms = 1 << 52
    await kit.take("impressions", impression(far_ms, user=1), record_time_ms=far_ms)

    answer = await read(client, entities={"user_id": [1]}, features=["user_engagement:impressions_1h"])

    assert answer["results"][1]["values"] == [1]
    assert answer["results"][1]["event_timestamps"] == ["9999-12-31T23:59:59.999Z"]


async def test_metadata_says_the_instant_and_up_to_when_the_answer_is_complete(kit, client):
    """
    A quiet key is not an old key, but a partition that lags is seen in the oldest row of the answer.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))
    kit.clock.advance(5_000)
    await kit.take("impressions", impression(NOW_MS, user=2))
    kit.clock.advance(5_000)
    request = {"features": ["user_engagement:impressions_1h"]}

    first = await read(client, entities={"user_id": [1]}, **request)
    second = await read(client, entities={"user_id": [2]}, **request)
    both = await read(client, entities={"user_id": [2, 1]}, **request)
    neighbour = await read(client, entities={"user_id": [3]}, **request)
    unknown = await read(client, entities={"user_id": [1, 5]}, **request)

    assert first["metadata"]["instant_ms"] == NOW_MS + 10_000
    assert first["metadata"]["min_as_of_ms"] == NOW_MS
    assert second["metadata"]["min_as_of_ms"] == NOW_MS + 5_000
    assert both["metadata"]["min_as_of_ms"] == NOW_MS
    # User 3 was never seen, but is in the partition of user 2; nothing was ever written to the partition of user 5.
    assert neighbour["metadata"]["min_as_of_ms"] == NOW_MS + 5_000
    assert unknown["metadata"]["min_as_of_ms"] == 0
    assert "feature_view_metadata" not in first["metadata"]


async def test_versions_of_groups_are_told_on_request(kit):
    """
    Feast's clients ask for them; each group is named once, in the order of the request.
    """
    kit.numbers["user_taste"] = 3
    async with TestClient(TestServer(kit.web_app())) as client:
        answer = await read(
            client,
            entities={"user_id": [1]},
            features=["user_taste:tab", "user_engagement:clicks_1h", "user_taste:impressions_all"],
            include_feature_view_version_metadata=True,
        )

    assert answer["metadata"]["feature_view_metadata"] == [
        {"name": "user_taste", "version": 3},
        {"name": "user_engagement", "version": 1},
    ]


async def test_a_key_that_is_asked_for_twice_is_answered_twice(kit, client):
    """
    A feed that lists a video twice reads it twice; rows are not to be put together.
    """
    await kit.take("impressions", impression(NOW_MS, video=9), impression(NOW_MS, video=8))

    answer = await read(client, entities={"video_id": [9, 8, 9, 9]}, features=["video_popularity:impressions_5m"])

    assert answer["results"][0]["values"] == [9, 8, 9, 9]
    assert answer["results"][1]["values"] == [1, 1, 1, 1]
    assert kit.metric("freshet_tier_keys_total", tier="cache", outcome="hit") == 2


async def test_keys_of_any_text_are_answered_as_they_came(kit, client):
    """
    Nothing in a key is normalised, cut or taken for a separator; the neighbour with a like name is another key.
    """
    cities = ["a|b", "a%7Cb", "Zürich", "Zu\u0308rich", " ", "", "\x00", "{x}#y", "🏔", "i1"]
    await kit.take("visits", *(visit(NOW_MS, city, city) for city in cities))

    answer = columns(await read(client, entities={"city": cities}, feature_service="cities"))

    assert answer["city"]["values"] == answer["note"]["values"] == cities
    assert answer["visits_1h"]["values"] == [1] * len(cities)


async def test_a_record_that_is_down_is_told_as_such(kit):
    """
    A client that retries is told when; it is not told that the user does not exist.
    """
    for error in (StoreError("it is down"), StoreTimeoutError("no answer")):
        kit.record, kit.cache = FailingStore("record", error), None
        async with (
            TestClient(TestServer(kit.web_app())) as client,
            client.post(
                "/get-online-features", json={"entities": {"user_id": [1]}, "feature_service": "home_feed"}
            ) as answer,
        ):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert (await answer.json())["detail"]

    assert kit.metric("freshet_store_errors_total", store="record", operation="read") == 2
    assert kit.metric("freshet_requests_total", status="503") == 2


async def test_a_record_that_is_down_costs_only_what_nobody_else_can_tell(kit):
    """
    One cold user among a hundred must not cost the feed; and what nothing is known of is no zero.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))
    kit.record = FailingStore("record", StoreError("it is down"))
    async with TestClient(TestServer(kit.web_app())) as client:
        answer = await read(
            client,
            entities={"user_id": [1, 2]},
            features=["user_engagement:impressions_1h", "user_engagement:clicks_1h"],
        )

    assert [(result["values"], result["statuses"]) for result in answer["results"][1:]] == [
        ([1, None], ["PRESENT", "INVALID"]),
        ([0, None], ["PRESENT", "INVALID"]),
    ]
    assert answer["metadata"]["unread"] == ["user_engagement"]
    assert answer["metadata"]["min_as_of_ms"] == 0
    assert kit.metric("freshet_tier_keys_total", tier="record", outcome="unread") == 1


def with_defaults() -> Registry:
    """The definitions, with a group that is served by its defaults while no store can tell."""
    state = replace(
        USER_STATE,
        features=(latest("last_tab", IMPRESSIONS, col("tab"), default=9), *USER_STATE.features[1:]),
        serving=replace(USER_STATE.serving, on_failure="default"),
    )
    groups = tuple(state if group is USER_STATE else group for group in REGISTRY.groups)
    return Registry(groups=groups, services=features.REGISTRY.services)


async def test_defaults_are_served_as_such_while_no_store_can_tell():
    """
    A model goes on with the vector of somebody unknown; that these are no values of the user's must be told, or they are
    learned from.
    """
    kit = ServingKit(ManualClock(NOW_MS), registry=with_defaults())
    await kit.take("impressions", impression(NOW_MS, user=1, tab=3))
    kit.record = FailingStore("record", StoreError("it is down"))
    async with TestClient(TestServer(kit.web_app())) as client:
        answer = await read(
            client,
            entities={"user_id": [1, 2]},
            features=["user_state:last_tab", "user_state:last_ms", "user_engagement:impressions_1h"],
        )

    assert [(result["values"], result["statuses"]) for result in answer["results"][1:]] == [
        ([3, 9], ["PRESENT", "INVALID"]),
        ([4_000, None], ["PRESENT", "INVALID"]),
        ([1, None], ["PRESENT", "INVALID"]),
    ]
    assert answer["metadata"]["unread"] == ["user_state", "user_engagement"]
    assert answer["metadata"]["defaults"] == ["user_state"]
    assert answer["metadata"]["min_as_of_ms"] == 0


async def test_defaults_are_an_answer_where_nothing_at_all_can_be_read():
    """
    Who declared what to serve on a failure wants it when everything fails, and not a 503; nobody else does.
    """
    kit = ServingKit(ManualClock(NOW_MS), registry=with_defaults())
    kit.record = kit.cache = FailingStore("record", StoreError("it is down"))
    async with TestClient(TestServer(kit.web_app())) as client:
        answer = await read(client, entities={"user_id": [2]}, features=["user_state:last_tab"])
        asked = {"entities": {"user_id": [2]}, "features": ["user_engagement:impressions_1h"]}
        async with client.post("/get-online-features", json=asked) as refused:
            assert refused.status == 503
        explained = await (await client.get("/explain?feature=user_state:last_tab&user_id=2")).json()
        async with client.get("/explain?feature=user_engagement:impressions_1h&user_id=2") as refused:
            assert refused.status == 503

    assert [answer["results"][1][part] for part in ("values", "statuses")] == [[9], ["INVALID"]]
    assert (explained["value"], explained["status"], explained["as_of_ms"]) == (9, "INVALID", 0)
    assert "on_failure='default'" in explained["why"]


async def test_old_copies_are_told_as_such():
    """
    Whoever reads may want to know that it is served what was true a minute ago.
    """
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    await kit.take("impressions", impression(NOW_MS, user=1))
    request = {"entities": {"user_id": [1]}, "features": ["user_engagement:impressions_1h"]}
    async with TestClient(TestServer(kit.web_app())) as client:
        assert "old" not in (await read(client, **request))["metadata"]
        kit.record.read = kit.cache.read = kit.cache.lease = _fail
        kit.clock.advance(60_000)
        answer = await read(client, **request)

    assert (answer["results"][1]["values"], answer["metadata"]["old"]) == ([1], ["user_engagement"])


async def _fail(*_: object, **__: object) -> None:
    raise StoreError("it is down")


class HangingStore(FailingStore):
    """Gives no answer."""

    async def read(self, keys, *, deadline_ms):
        await asyncio.Event().wait()


async def test_who_says_how_long_it_waits_is_answered_by_then(kit):
    """
    A feed has 50 ms for its features and goes on without them; an answer after that is for nobody.
    """
    kit.record, kit.cache = HangingStore("record", StoreError("")), None
    asked = {"entities": {"user_id": [1]}, "feature_service": "home_feed"}
    async with TestClient(TestServer(kit.web_app())) as client:
        async with client.post("/get-online-features", json=asked, headers={"Freshet-Deadline-Ms": "50"}) as answer:
            assert (answer.status, (await answer.json())["detail"]) == (504, "the stores gave no answer within 50 ms")
        for header in ("soon", "9" * 5_000):
            async with client.post(
                "/get-online-features", json=asked, headers={"Freshet-Deadline-Ms": header}
            ) as answer:
                assert answer.status == 400
                assert f"Freshet-Deadline-Ms: '{header[:64]}" in (await answer.json())["detail"]


async def test_reads_beyond_what_the_stores_can_take_are_refused_at_once(kit):
    """
    The record hangs and requests keep coming: each would hold memory, and none would be answered in time.
    """
    kit.record, kit.cache = HangingStore("record", StoreError("")), None
    kit.web_app()
    reads = Reads(lambda: kit.server, kit.metrics)
    body = b'{"entities": {"user_id": [1]}, "feature_service": "home_feed"}'
    # All in one turn of the loop, so that none has begun when the next one comes.
    answers = [reads.answer(body) for _ in range(LIMIT_START + 10)]
    refused = [one for one in answers if isinstance(one, Answer)]
    waiting = [asyncio.ensure_future(one) for one in answers if not isinstance(one, Answer)]
    await idle()

    assert [(one.status, one.retry_after) for one in refused] == [(503, "1")] * 10
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    later = reads.answer(body, deadline_ms=1)
    assert (await later).status == 504


@pytest.mark.parametrize("error", [StoreError("it is down"), StoreTimeoutError("no answer within 150 ms")])
async def test_a_cache_that_fails_is_a_counted_miss(kit, error):
    """
    Redis down or slow costs time, not answers: values come from the record and are right.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))
    kit.cache = FailingStore("cache", error)
    async with TestClient(TestServer(kit.web_app())) as client:
        answer = await read(client, entities={"user_id": [1, 2]}, features=["user_engagement:impressions_1h"])

    assert answer["results"][1]["values"] == [1, 0]
    assert kit.metric("freshet_tier_keys_total", tier="cache", outcome="failed") == 2
    assert kit.metric("freshet_store_errors_total", store="cache", operation="read") == 1
    assert kit.metric("freshet_tier_keys_total", tier="record", outcome="hit") == 1


async def test_a_row_that_cannot_be_read_is_a_miss_in_the_cache_and_an_error_in_the_record(kit):
    """
    Corrupt bytes in Redis cost time; in the record they are ours to mend, and told in a body that Feast's client parses.
    """
    await kit.take("impressions", impression(NOW_MS, user=1), impression(NOW_MS, user=2))
    request = {"entities": {"user_id": [1, 2]}, "features": ["user_engagement:impressions_1h"]}
    corrupt = StoredRow(RowKey("user#i1", "user_engagement@v1"), 1 << 60, version_bytes(1 << 60) + b"\xc1")
    async with TestClient(TestServer(kit.web_app())) as client:
        await kit.cache.write([corrupt], deadline_ms=100)
        answer = await read(client, **request)
        await kit.record.write([corrupt], deadline_ms=100)
        failed = await client.post("/get-online-features", json=request)

        assert answer["results"][1]["values"] == [1, 1]
        assert failed.status == 500
        assert "cannot be read" in (await failed.json())["detail"]
    assert kit.metric("freshet_requests_total", status="500") == 1


async def test_health_and_metrics_answer(kit, client):
    """
    An orchestrator and Prometheus read these; a store that does not answer makes the worker unready, not dead.
    """
    await read(client, entities={"user_id": [1]}, feature_service="home_feed")
    kit.health.readable = False

    statuses = {path: (await client.get(path)).status for path in ("/health", "/ready", "/ready/ingest", "/metrics")}
    text = await (await client.get("/metrics")).text()

    assert statuses == {"/health": 200, "/ready": 503, "/ready/ingest": 200, "/metrics": 200}
    assert 'freshet_requests_total{status="200"} 1.0' in text
    assert "feast_feature_server_request_latency_seconds_count 1.0" in text


async def test_empty_lists_are_null_for_clients_that_cannot_read_them(kit):
    """
    Feast's SDK raises a TypeError at an empty list, so a service with a list feature failed for every new user.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))
    wanted = {"entities": {"user_id": [1, 2]}, "features": ["user_taste:last_videos_7d"]}
    async with TestClient(TestServer(kit.web_app(empty_lists=False))) as client:
        told = (await read(client, **wanted))["results"][1]
    async with TestClient(TestServer(kit.web_app())) as client:
        plain = (await read(client, **wanted))["results"][1]

    assert (told["values"], told["statuses"]) == ([None, None], ["NULL_VALUE", "NOT_FOUND"])
    assert (plain["values"], plain["statuses"]) == ([[], []], ["PRESENT", "NOT_FOUND"])
