import io
from collections.abc import Callable, Collection
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from demo.check import CheckResult, check_served
from demo.log import DemoEvent
from demo.oracle import ENTITIES, Oracle, Value, same
from demo.screen import demo_screen
from demo.session import Progress, Report

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
# A whole number of hours, so that the steps of the short windows begin at it.
NOON_MS = 500_000 * HOUR_MS


def event(topic: str, event_id: str, time_ms: int, *, video_id: int = 1, **fields: int | str) -> DemoEvent:
    common = {"event_id": event_id, "time_ms": time_ms, "user_id": 7, "video_id": video_id, "tab": 0}
    return DemoEvent(topic, "7", time_ms=time_ms, fields=common | fields)


def impression(event_id: str, time_ms: int, *, video_id: int = 1, watch_ms: int = 0, duration_ms: int = 0) -> DemoEvent:
    return event("impressions", event_id, time_ms, video_id=video_id, watch_ms=watch_ms, duration_ms=duration_ms)


def user(events: list[DemoEvent], instant_ms: int) -> dict[str, Value]:
    return Oracle(events).expected("user", (7,), instant_ms)


def test_a_window_holds_its_oldest_step_whole():
    """
    One hour moves in steps of five minutes: an event of 11:00 counts until 12:04:59.999, and no longer.
    """
    events = [impression("a", NOON_MS - HOUR_MS), impression("b", NOON_MS - HOUR_MS + 5 * MINUTE_MS - 1)]

    counts = [
        user(events, instant_ms)["user_engagement:impressions_1h"]
        for instant_ms in (NOON_MS, NOON_MS + 5 * MINUTE_MS - 1, NOON_MS + 5 * MINUTE_MS)
    ]

    assert counts == [2, 2, 0]


def test_an_event_of_the_future_counts_from_its_own_step_on():
    """
    Clocks differ by a little: what was read early in a step holds everything known of that step.
    """
    events = [impression("a", NOON_MS + MINUTE_MS)]

    before = user(events, NOON_MS - 1)["user_engagement:impressions_1h"]
    within = user(events, NOON_MS)["user_engagement:impressions_1h"]

    assert (before, within) == (0, 1)


def test_steps_of_a_day_and_a_week_begin_at_the_epoch():
    """
    Steps of 2 h and 14 h are multiples since the epoch, not since midnight or since the event.
    """
    week_step_ms = 14 * HOUR_MS
    instant_ms = NOON_MS // week_step_ms * week_step_ms + 13 * HOUR_MS
    edge_ms = (instant_ms - 7 * 24 * HOUR_MS) // week_step_ms * week_step_ms
    events = [impression("in", edge_ms), impression("out", edge_ms - 1)]

    values = user(events, instant_ms)

    assert values["user_engagement:impressions_7d"] == 1
    assert values["user_engagement:impressions_1d"] == 0
    assert values["user_taste:impressions_all"] == 2


def test_an_id_counts_once_per_topic():
    """
    A producer's repetition is dropped; a click that shares the id of its impression is none.
    """
    events = [impression("a", NOON_MS, watch_ms=1_000)] * 2 + [event("clicks", "a", NOON_MS)]

    values = user(events, NOON_MS)

    assert values["user_engagement:impressions_1h"] == 1
    assert values["user_engagement:clicks_1h"] == 1
    assert values["user_engagement:watch_s_1h"] == 1.0


def test_last_values_are_ordered_by_time_and_then_by_id():
    """
    Ties are normal in this log: without the id the answer would depend on the order of arrival.
    """
    events = [event("clicks", "b", NOON_MS, video_id=2), event("clicks", "a", NOON_MS, video_id=1)]

    assert user(events, NOON_MS)["user_taste:last_videos_7d"] == [2, 1]
    assert user(events[::-1], NOON_MS)["user_taste:last_videos_7d"] == [2, 1]


def test_distinct_keeps_a_value_at_its_newest_place_and_plain_keeps_all():
    """
    A user who watches one video five times has not watched five videos.
    """
    videos = (1, 2, 1, 3, 3, 1)
    clicks = [event("clicks", f"c{at}", NOON_MS + at, video_id=video) for at, video in enumerate(videos)]
    shown = [impression(f"i{at}", NOON_MS + at, video_id=video) for at, video in enumerate(videos)]
    oracle = Oracle(clicks + shown)

    distinct = oracle.expected("user", (7,), NOON_MS + MINUTE_MS)["user_taste:last_videos_7d"]
    plain = oracle.expected("user_tab", (7, 0), NOON_MS + MINUTE_MS)["user_tab_engagement:last_videos_1d"]

    assert distinct == [1, 3, 2]
    assert plain == [1, 3, 3, 1, 2]


def test_ratios_have_the_default_that_their_feature_declares():
    """
    A click rate without impressions is 0, a rate of long views without impressions is unknown.
    """
    oracle = Oracle([event("conversions", "a", NOON_MS, kind="long_view")])

    values = oracle.expected("video", (1,), NOON_MS)

    assert values["video_popularity:ctr_1h"] == 0.0
    assert values["video_quality:long_view_rate_7d"] is None
    assert values["video_quality:long_views_7d"] == 1


def test_nulls_do_not_count_in_a_mean():
    """
    A video of unknown length says nothing about the share that was watched; it is not a share of 0.
    """
    events = [
        impression("a", NOON_MS, watch_ms=500, duration_ms=1_000),
        impression("b", NOON_MS, watch_ms=3_000, duration_ms=0),
    ]

    values = Oracle(events).expected("video", (1,), NOON_MS)

    assert values["video_quality:watch_share_7d"] == 0.5
    assert values["video_quality:shortest_watch_s_7d"] == 0.5
    assert values["video_quality:longest_watch_s_7d"] == 3.0
    assert values["video_quality:duration_ms"] == 0


def test_nothing_has_empty_values():
    """
    A count of nothing is 0, a mean of nothing is unknown, a list of nothing is empty.
    """
    values = user([], NOON_MS)

    assert values["user_engagement:clicks_7d"] == 0
    assert values["user_engagement:watch_s_7d"] == 0.0
    assert values["user_taste:mean_watch_s_7d"] is None
    assert values["user_taste:last_liked_video_7d"] is None
    assert values["user_taste:last_videos_7d"] == []


def test_same_is_strict_about_everything_but_the_last_digits_of_a_float():
    """
    The check stands and falls with this: a 1 for a true, or a 0 for a null, is a wrong value.
    """
    assert same(1 / 3, 1 / 3 + 1e-12)
    assert same(0.0, 0)
    assert not same(1 / 3, 0.333)
    assert not same(0.0, None)
    assert not any(same(expected, served) for expected, served in [(1.0, True), (1, True)])
    assert not same(1, "1")
    assert not same(None, 0)
    assert not same([1, 2], [2, 1])
    assert not same([1], [1, 1])
    assert not same([], None)


def test_what_is_usual_has_no_change():
    """
    The change of a video's hour is told against its day: here one view in the hour and 23 in the day, and then more.
    """
    hourly = [impression(f"h{hour}", NOON_MS - hour * HOUR_MS + 1) for hour in range(1, 24)]
    oracles = [Oracle(hourly + [impression(f"n{at}", NOON_MS) for at in range(number)]) for number in (0, 3)]

    changes = [each.expected("video", (1,), NOON_MS)["video_popularity:impressions_change_1h"] for each in oracles]

    assert changes == [pytest.approx(1 / (23 / 24) - 1), pytest.approx(4 / (26 / 24) - 1)]
    assert Oracle([]).expected("video", (1,), NOON_MS)["video_popularity:impressions_change_1h"] is None


def test_tops_and_firsts_have_an_order_where_they_tie():
    """
    Equally frequent tabs are in the order of their numbers, events of one time in the order of their ids.
    """
    shown = [
        event("impressions", f"i{at}", NOON_MS, watch_ms=at * 1_000, duration_ms=0, tab=tab, video_id=9 - at)
        for at, tab in enumerate((4, 1, 1, 4, 0, 7))
    ]
    oracle = Oracle(shown[::-1])

    assert oracle.expected("user", (7,), NOON_MS)["user_taste:top_tabs_7d"] == [1, 4, 0]
    assert oracle.expected("user", (7,), NOON_MS)["user_taste:watch_s_deviation_7d"] == pytest.approx(1.7078251277)
    assert oracle.expected("user_tab", (7, 4), NOON_MS)["user_tab_engagement:first_video_1d"] == 9


async def check(
    damage: Callable[[dict[str, Any]], object] = lambda answer: None, served: Collection[str] | None = None
) -> CheckResult:
    """
    Check a server that answers like the oracle, except for some damage to each answer about users.
    """
    oracle = Oracle(
        [
            impression("a", NOON_MS, watch_ms=500, duration_ms=1_000),
            event("clicks", "b", NOON_MS),
            event("clicks", "c", NOON_MS, video_id=2),
        ]
    )

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        entity = next(entity for entity, columns in ENTITIES.items() if list(asked["entities"]) == list(columns))
        keys = list(zip(*asked["entities"].values(), strict=True))
        rows = [oracle.expected(entity, key, NOON_MS) for key in keys]
        columns = list(asked["entities"].values()) + [[row[name] for row in rows] for name in asked["features"]]
        body = {
            "metadata": {
                "feature_names": [*asked["entities"], *(name.replace(":", "__") for name in asked["features"])],
                "instant_ms": NOON_MS,
            },
            "results": [
                {"values": values, "statuses": ["NULL_VALUE" if value is None else "PRESENT" for value in values]}
                for values in columns
            ],
        }
        if entity == "user":
            damage(body)
        return web.json_response(body)

    app = web.Application()
    app.router.add_post("/get-online-features", answer)
    async with TestServer(app) as server:
        return await check_served(str(server.make_url("")).rstrip("/"), oracle, served=served)


async def test_the_check_reads_every_feature_of_every_key():
    """
    One user of 22 features, two videos of 22, one tab of 9; a check that skips some would promise too much.
    """
    result = await check()

    assert (result.values_checked, result.values_wrong, result.first_wrong) == (22 + 2 * 22 + 9, 0, [])
    assert len(result.read_ms) == 3


async def test_what_the_definitions_have_no_more_is_not_asked_for():
    """
    Whoever took a feature out of ``features/`` was told that a hundred thousand values are wrong.
    """
    result = await check(served=["user_taste:tab", "video_quality:likes_7d", "video_quality:of_my_own"])

    assert (result.values_checked, result.values_wrong) == (1 + 2, 0)


def test_features_that_are_not_compared_are_told():
    """
    A feature of the reader's own is served and nobody counts it: "0 wrong" must not be taken for a promise about it.
    """
    mine = [f"user_engagement:mine_{number}d" for number in range(5)]
    progress = Progress(phase="done", report=Report(values_checked=3, not_compared=mine))
    screen = Console(width=200, file=io.StringIO())

    screen.print(demo_screen(progress))

    told = screen.file.getvalue()
    assert (
        "user_engagement:mine_0d, user_engagement:mine_1d, user_engagement:mine_2d and 2 more: what they must be"
        in told
    )
    assert progress.report.as_json()["not_compared"] == mine
    assert "not_compared" not in Report().as_json()


@pytest.mark.parametrize(
    ("damage", "wrong", "description"),
    [
        (lambda answer: answer["results"][1].update(values=[5]), 1, "expected 1, served 5"),
        (lambda answer: answer["results"][1].update(statuses=["NOT_FOUND"]), 1, "NOT_FOUND, but its group has events"),
        (lambda answer: answer["results"][1].update(statuses=["INVALID"]), 1, "with status INVALID"),
        (lambda answer: answer["metadata"]["feature_names"].__setitem__(1, "user__other"), 1, "not in the answer"),
        (
            lambda answer: answer["metadata"].update(instant_ms=NOON_MS + 48 * HOUR_MS),
            8,
            "expected 0, served 1 (PRESENT)",
        ),
        (lambda answer: answer["metadata"].pop("instant_ms"), 22, "instant_ms"),
        (lambda answer: answer["results"][0].update(values=[8]), 22, "'user_id' has not the keys"),
        (lambda answer: answer["results"].pop(), 22, "not the answer"),
        (lambda answer: answer.pop("results"), 22, "results"),
    ],
)
async def test_the_check_sees_what_is_wrong(damage, wrong, description):
    """
    A check that cannot fail is worth nothing: each way of being wrong is counted and told.
    """
    result = await check(damage)

    assert result.values_wrong == wrong
    assert description in result.first_wrong[0]


async def test_a_server_that_cannot_answer_makes_all_values_wrong():
    """
    The demo ends with a verdict, not with a stack trace.
    """
    result = await check_served("http://127.0.0.1:9", Oracle([impression("a", NOON_MS)]))

    assert result.values_wrong == result.values_checked == 22 + 22 + 9
    assert "ClientConnector" in result.first_wrong[0]
