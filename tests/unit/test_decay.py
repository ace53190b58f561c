"""Decay: a window slides and empties by itself, read over HTTP, equal to a brute-force count at every step."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from demo.log import CLICKS, IMPRESSIONS, DemoEvent
from demo.oracle import Oracle, same
from tests.clock import ManualClock
from tests.serving_kit import ServingKit, click, impression

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
TILE_MS = 5 * MINUTE_MS
# In the middle of a tile of every size, so that no step stands on an edge by chance.
START_MS = 1_700_000_000_000 // DAY_MS * DAY_MS + 7 * HOUR_MS + 11 * MINUTE_MS

# The one of 660 is on an edge itself, as a mutant asked for: it belongs to the tile that begins there.
AGES_S = (3_599, 3_000, 2_400, 2_399, 1_800, 1_201, 900, 660, 600, 300, 299, 1, 0)


@pytest.fixture
def clock():
    return ManualClock(START_MS)


@pytest.fixture(params=[False, True], ids=["stores alone", "with local copies"])
async def kit(request, clock):
    return ServingKit(clock, keeps_copies=request.param)


async def play_an_hour(kit, *, user=1, tab=3):
    """Let a user watch for an hour that ends now; return an oracle that knows the same events."""
    watched = [
        impression(START_MS - age_s * 1_000, user=user, tab=tab, video=40 + number, watch_ms=1_000 + number)
        for number, age_s in enumerate(AGES_S)
    ]
    clicked = [click(START_MS - age_s * 1_000, user=user, tab=tab) for age_s in AGES_S[::3]]
    await kit.take(IMPRESSIONS, *watched)
    await kit.take(CLICKS, *clicked)
    return Oracle(
        DemoEvent(topic, str(user), time_ms=event["time_ms"], fields=event)
        for topic, events in ((IMPRESSIONS, watched), (CLICKS, clicked))
        for event in events
    )


async def read_row(client, group, key, features):
    """Return the instant, and by feature its value and status."""
    request = {"entities": {name: [value] for name, value in key.items()}, "features": features}
    async with client.post("/get-online-features", json=request) as answer:
        assert answer.status == 200
        content = await answer.json()
    names = content["metadata"]["feature_names"][len(key) :]
    results = content["results"][len(key) :]
    row = {f"{group}:{name}": (one["values"][0], one["statuses"][0]) for name, one in zip(names, results, strict=True)}
    return content["metadata"]["instant_ms"], row


async def test_an_hour_falls_tile_by_tile_to_zero_without_an_event(kit, clock):
    """
    A user who left an hour ago is not a user who watches twelve videos an hour; nobody writes a row to say so.
    """
    oracle = await play_an_hour(kit)
    seen = []
    async with TestClient(TestServer(kit.web_app())) as client:
        for _ in range(16):
            instant_ms, row = await read_row(
                client, "user_engagement", {"user_id": 1}, ["user_engagement:impressions_1h", "user_engagement:ctr_1h"]
            )
            expected = oracle.expected("user", (1,), instant_ms)
            assert instant_ms == clock.now_ms()
            assert row == {name: (expected[name], "PRESENT") for name in row}
            seen.append(row["user_engagement:impressions_1h"][0])
            clock.advance(TILE_MS)

    assert seen[0] == len(AGES_S)
    assert seen == sorted(seen, reverse=True)
    assert seen[-3:] == [0, 0, 0]
    # Tile by tile, and not all at once: at least half of the steps take something away.
    assert len(set(seen)) > len(AGES_S) // 2


async def test_every_edge_of_the_window_is_where_the_oracle_has_it(kit, clock):
    """
    One millisecond decides whether a tile is in or out; on both sides of every edge the count is the oracle's.
    """
    oracle = await play_an_hour(kit)
    clock.advance(TILE_MS - clock.now_ms() % TILE_MS - 1)
    async with TestClient(TestServer(kit.web_app())) as client:
        for _ in range(14):
            for step_ms in (1, TILE_MS - 1):
                instant_ms, row = await read_row(
                    client, "user_engagement", {"user_id": 1}, ["user_engagement:impressions_1h"]
                )
                assert (
                    row["user_engagement:impressions_1h"][0]
                    == (oracle.expected("user", (1,), instant_ms)["user_engagement:impressions_1h"])
                )
                clock.advance(step_ms)


async def test_a_row_whose_windows_are_all_empty_is_gone(kit, clock):
    """
    All features of a group of windows equal the oracle's for more than a day of silence; then the key is not found,
    for memory must not grow with everyone who was ever seen.
    """
    oracle = await play_an_hour(kit)
    names = [name for name in oracle.empty("user_tab") if name.startswith("user_tab_engagement:")]
    key, statuses = {"user_id": 1, "tab": 3}, []
    async with TestClient(TestServer(kit.web_app())) as client:
        for _ in range(320):
            instant_ms, row = await read_row(client, "user_tab_engagement", key, names)
            expected = oracle.expected("user_tab", (1, 3), instant_ms)
            assert [name for name in names if not same(expected[name], row[name][0])] == []
            statuses.append(row["user_tab_engagement:impressions_1d"][1])
            clock.advance(TILE_MS)

    assert (statuses[0], statuses[-1]) == ("PRESENT", "NOT_FOUND")
    assert statuses == sorted(statuses, reverse=True)
    # Not before the day is over, and one tile of two hours later at the latest.
    last = statuses.count("PRESENT") * TILE_MS
    assert DAY_MS <= last <= DAY_MS + 2 * HOUR_MS + TILE_MS


async def test_a_group_with_a_feature_of_all_time_is_never_gone(kit, clock):
    """
    What a user has watched in all stays true, although everything else about them has decayed.
    """
    oracle = await play_an_hour(kit)
    clock.advance(400 * DAY_MS)
    async with TestClient(TestServer(kit.web_app())) as client:
        instant_ms, row = await read_row(
            client,
            "user_taste",
            {"user_id": 1},
            ["user_taste:impressions_all", "user_taste:tab", "user_taste:mean_watch_s_7d"],
        )

    expected = oracle.expected("user", (1,), instant_ms)
    assert row == {
        "user_taste:impressions_all": (len(AGES_S), "PRESENT"),
        "user_taste:tab": (3, "PRESENT"),
        "user_taste:mean_watch_s_7d": (None, "NULL_VALUE"),
    }
    assert {name: value for name, (value, _) in row.items()} == {name: expected[name] for name in row}


async def test_a_clock_behind_the_row_answers_for_the_row_s_own_instant(kit, clock):
    """
    A reader whose clock is slow must not lose the newest events: the answer's instant is the row's, and it says so.
    """
    oracle = await play_an_hour(kit)
    clock.advance(-2 * HOUR_MS)
    async with TestClient(TestServer(kit.web_app())) as client:
        instant_ms, row = await read_row(client, "user_engagement", {"user_id": 1}, ["user_engagement:impressions_1h"])
        alone_ms, _ = await read_row(client, "user_engagement", {"user_id": 2}, ["user_engagement:impressions_1h"])

    assert instant_ms == START_MS
    assert row["user_engagement:impressions_1h"] == (
        oracle.expected("user", (1,), START_MS)["user_engagement:impressions_1h"],
        "PRESENT",
    )
    # A key without a row has no instant of its own.
    assert alone_ms == clock.now_ms()


async def test_an_event_that_comes_late_into_a_decayed_window_is_counted_where_it_belongs(kit, clock):
    """
    An event of fifty minutes ago is in the hour for ten minutes more, not for another hour.
    """
    await kit.take(IMPRESSIONS, impression(START_MS, user=9))
    clock.advance(50 * MINUTE_MS)
    await kit.take(IMPRESSIONS, impression(START_MS, user=9))
    seen = []
    async with TestClient(TestServer(kit.web_app())) as client:
        for _ in range(4):
            _, row = await read_row(client, "user_engagement", {"user_id": 9}, ["user_engagement:impressions_1h"])
            seen.append(row["user_engagement:impressions_1h"][0])
            clock.advance(TILE_MS)

    assert seen == [2, 2, 2, 0]
