"""What is prepared of a row is served only as long as it is what the row says."""

from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from msgspec import structs

from core.plans import GroupPlan, plan_group
from core.ports import RowKey
from core.rows import Row, unpack_row
from serving.answers.ready import ReadyRow, ReadyRows, serve_row
from serving.statuses import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE
from tests.serving_kit import NOW_MS, REGISTRY, ServingKit, click, impression

HOUR_MS = 3_600_000
GROUPS = {group.name: plan_group(group) for group in REGISTRY.groups}
ENGAGEMENT, STATE, TASTE = GROUPS["user_engagement"], GROUPS["user_state"], GROUPS["user_taste"]


async def stored(kit: ServingKit, plan: GroupPlan) -> tuple[RowKey, Row]:
    key = RowKey("user#i1", f"{plan.name}@v1")
    return key, unpack_row((await kit.record.read([key], deadline_ms=1_000))[key])


def prepared(rows: ReadyRows, plan: GroupPlan, key: RowKey, row: Row | None, instant_ms: int) -> ReadyRow:
    (ready,) = rows.get_all(plan, [key], [row], instant_ms)
    return ready


async def test_a_row_is_prepared_once_until_a_tile_boundary_passes(kit):
    """
    A row of a hot user is read a thousand times a second and must not be merged a thousand times; but an hour later its
    clicks have left the window although nobody has written the row.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows()

    first = prepared(rows, ENGAGEMENT, key, row, NOW_MS)

    assert prepared(rows, ENGAGEMENT, key, row, first.until_ms - 1) is first
    later = prepared(rows, ENGAGEMENT, key, row, first.until_ms)
    assert later is not first
    assert later.values == serve_row(ENGAGEMENT, row, first.until_ms).values != first.values


async def test_a_new_version_of_a_row_is_prepared_anew(kit):
    """
    A click that was applied is served at once, whatever was prepared of the row before.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows()
    before = prepared(rows, ENGAGEMENT, key, row, NOW_MS)
    await kit.take("clicks", click(NOW_MS))
    _, newer = await stored(kit, ENGAGEMENT)

    after = prepared(rows, ENGAGEMENT, key, newer, NOW_MS)

    assert after.row is newer
    assert after.values == serve_row(ENGAGEMENT, newer, NOW_MS).values != before.values


async def test_values_that_became_too_old_are_not_served_from_what_was_prepared(kit):
    """
    A group with a maximum age says so of an old value, also to those who read it often.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, STATE)
    rows = ReadyRows()

    young = prepared(rows, STATE, key, row, NOW_MS + HOUR_MS)
    old = prepared(rows, STATE, key, row, NOW_MS + HOUR_MS + 1)

    assert (young.status, old.status) == (None, OUTSIDE_MAX_AGE)
    assert set(old.values) == {None}


async def test_a_row_whose_windows_are_all_empty_is_served_as_none(kit):
    """
    What has expired is not found, before and after somebody read it while it was not.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows()
    prepared(rows, ENGAGEMENT, key, row, NOW_MS)

    ready = prepared(rows, ENGAGEMENT, key, row, row.expires_at_ms)

    assert ready.status == NOT_FOUND
    assert tuple(ready.values) == ENGAGEMENT.empty


async def test_an_empty_list_that_is_served_as_null_is_no_value_that_is_present(kit):
    """
    Where all other values of a row were there, its null was said to be ``PRESENT``.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, TASTE)
    row = structs.replace(row, values=[0 if value is None else value for value in row.values])

    ready = prepared(ReadyRows(empty_lists=False), TASTE, key, row, NOW_MS)

    assert row.values.count([]) == ready.statuses.count(NULL_VALUE) == 1
    assert not ready.is_present


async def test_a_clock_that_goes_back_gets_the_values_of_its_own_instant(kit):
    """
    Values of a later instant have lost events that are still in the window of an earlier one.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows()
    prepared(rows, ENGAGEMENT, key, row, NOW_MS + 2 * HOUR_MS)

    back = prepared(rows, ENGAGEMENT, key, row, NOW_MS)

    assert back.values == row.values


async def test_only_so_many_rows_are_remembered(kit):
    """
    A crawler that reads every user once does not fill the worker's memory.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows(rows_max=2)
    others = [RowKey(f"user#i{user}", key.sk) for user in (2, 3)]

    first = prepared(rows, ENGAGEMENT, key, row, NOW_MS)
    for other in others:
        prepared(rows, ENGAGEMENT, other, row, NOW_MS)

    assert prepared(rows, ENGAGEMENT, key, row, NOW_MS) is not first


async def test_the_tiles_of_what_is_remembered_are_bounded_in_bytes(kit):
    """
    A row may have 64 KB of them: 10,000 such rows held 400 MB of which nobody had an account.
    """
    await kit.take("impressions", impression(NOW_MS))
    key, row = await stored(kit, ENGAGEMENT)
    rows = ReadyRows(tail_bytes_max=2 * memoryview(row.tail).nbytes)
    keys = [RowKey(f"user#i{user}", key.sk) for user in range(4)]
    made = [prepared(rows, ENGAGEMENT, other, row, NOW_MS) for other in (keys[0], *keys, keys[3])]

    # The third and the fourth are there yet; one that was made once more counted once.
    assert prepared(rows, ENGAGEMENT, keys[2], row, NOW_MS) is made[3]
    assert prepared(rows, ENGAGEMENT, keys[3], row, NOW_MS) is made[4]
    assert prepared(rows, ENGAGEMENT, keys[1], row, NOW_MS) is not made[2]


async def test_keys_that_are_asked_together_get_what_each_gets_alone(kit):
    """
    Answers to one key and to many are put together in different ways; they say the same, also of nulls and of nobody.
    """
    await kit.take("impressions", impression(NOW_MS, user=1), impression(NOW_MS - HOUR_MS, user=2, watch_ms=None))
    await kit.take("clicks", click(NOW_MS, user=1))
    users = [1, 2, 404]

    async with TestClient(TestServer(kit.web_app())) as client:

        async def read(keys: list[int]) -> list[dict[str, Any]]:
            request = {"entities": {"user_id": keys}, "feature_service": "home_feed"}
            async with client.post("/get-online-features", json=request) as answer:
                results: list[dict[str, Any]] = (await answer.json())["results"]
                return results

        together, alone = await read(users), [await read([user]) for user in users]

    assert {status for result in together for status in result["statuses"]} == {"PRESENT", "NULL_VALUE", "NOT_FOUND"}
    for number, results in enumerate(alone):
        assert results == [{name: [column[number]] for name, column in result.items()} for result in together]
