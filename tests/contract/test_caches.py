"""The contract of every cache that readers fill."""

import pytest

from core.leases import NO_ROW, new_token
from core.ports import Filling, RowKey, StoredRow

USER, OTHER = RowKey("user#i1", "spend@v1"), RowKey("user#i2", "spend@v1")
ENOUGH_MS = 60_000
OURS, THEIRS = new_token(), new_token()


@pytest.fixture(params=["memory", "redis", "redis cluster"])
def store_kind(request):
    return request.param


def packed(ver: int) -> bytes:
    return ver.to_bytes(8, "big") + b"payload"


async def write(cache, ver: int, key: RowKey = USER) -> int:
    return await cache.write([StoredRow(key, ver, packed(ver))], deadline_ms=ENOUGH_MS)


async def lease(cache, *keys: RowKey, token: bytes = OURS, lease_ms: int = ENOUGH_MS) -> dict[RowKey, bytes]:
    return await cache.lease(keys, token=token, lease_ms=lease_ms, deadline_ms=ENOUGH_MS)


async def fill(cache, value: bytes, *, token: bytes = OURS, key: RowKey = USER, expires_at_ms=None) -> int:
    return await cache.fill([Filling(key, value, expires_at_ms)], token=token, deadline_ms=ENOUGH_MS)


async def read(cache, *keys: RowKey) -> dict[RowKey, bytes]:
    return await cache.read(keys or (USER,), deadline_ms=ENOUGH_MS)


async def test_a_lease_is_given_once_and_tells_what_the_others_have(store):
    """
    Ten thousand readers of a row that has expired would all go to the record.
    """
    await write(store, 1, OTHER)

    assert await lease(store, USER, OTHER) == {OTHER: packed(1)}
    assert await lease(store, USER, OTHER, token=THEIRS) == {USER: OURS, OTHER: packed(1)}
    assert await read(store) == {USER: OURS}


async def test_what_is_found_takes_the_place_of_its_own_lease_alone(store):
    """
    Another reader's row may be older than what was written since.
    """
    await lease(store, USER)

    assert await fill(store, packed(1), token=THEIRS) == 0
    assert await fill(store, packed(2)) == 1
    assert await fill(store, packed(3)) == 0
    assert await read(store) == {USER: packed(2)}


async def test_a_write_ends_a_lease(store):
    """
    The row that a reader had found before was put over the newer one as soon as that was evicted.
    """
    await lease(store, USER)

    assert await write(store, 7) == 1
    assert await fill(store, packed(6)) == 0
    assert await read(store) == {USER: packed(7)}


async def test_a_row_follows_that_there_is_none(store):
    """
    A new user's first click must end that nobody knows them.
    """
    await lease(store, USER)

    assert await fill(store, NO_ROW) == 1
    assert await read(store) == {USER: NO_ROW}
    assert await lease(store, USER, token=THEIRS) == {USER: NO_ROW}
    assert await write(store, 0) == 1
    assert await read(store) == {USER: packed(0)}


async def test_a_lease_ends_by_itself(store, clock):
    """
    Its holder was killed: nobody would fill the row for ever.
    """
    await lease(store, USER, lease_ms=50)
    clock.advance(200)

    assert await fill(store, packed(1)) == 0
    assert await lease(store, USER, token=THEIRS) == {}
    assert await fill(store, packed(2), token=THEIRS) == 1


async def test_a_lease_may_be_taken_over_and_given_back(store, clock):
    """
    Its holder was killed, and each of those who waited would read the record until the lease ended.
    """
    await lease(store, USER)

    assert await fill(store, THEIRS, expires_at_ms=clock.now_ms() + ENOUGH_MS) == 1
    assert await fill(store, packed(1)) == 0
    assert await lease(store, USER) == {USER: THEIRS}
    assert await fill(store, THEIRS, token=THEIRS, expires_at_ms=0) == 1
    assert await lease(store, USER) == {}
    assert await fill(store, THEIRS) == 1
    assert await write(store, 0) == 1


async def test_what_was_filled_in_is_forgotten_in_time(store, clock):
    """
    That there is no row is true for a while at the most; and a past instant must end a lease at once.
    """
    await lease(store, USER, OTHER)

    assert await fill(store, NO_ROW, expires_at_ms=clock.now_ms() + 50) == 1
    assert await fill(store, NO_ROW, key=OTHER, expires_at_ms=clock.now_ms() - 1) == 1
    clock.advance(200)

    assert await read(store, USER, OTHER) == {}


async def test_many_keys_are_leased_and_filled_together(store):
    """
    After Redis was emptied a feed of a thousand videos is filled again in two calls.
    """
    keys = [RowKey(f"video#i{number}", "likes@v1") for number in range(1_000)]

    assert await lease(store, *keys) == {}
    filled = await store.fill([Filling(key, packed(1), None) for key in keys], token=OURS, deadline_ms=ENOUGH_MS)

    assert filled == len(keys)
    assert await read(store, *keys) == dict.fromkeys(keys, packed(1))


async def test_a_row_that_is_still_the_same_lives_on(store, clock):
    """
    Whoever has read it in the record once more knows that it is right; whatever else is there now, it knows nothing of.
    """
    gone = RowKey("user#i3", "spend@v1")
    await lease(store, USER, OTHER)
    await fill(store, packed(1), expires_at_ms=clock.now_ms() + 1_000)
    await fill(store, packed(1), key=OTHER, expires_at_ms=clock.now_ms() + 1_000)
    await write(store, 2, OTHER)
    later_ms = clock.now_ms() + ENOUGH_MS

    rows = [Filling(key, packed(1), later_ms) for key in (USER, OTHER, gone)]
    renewed = await store.renew(rows, deadline_ms=ENOUGH_MS)
    clock.advance(1_200)

    assert renewed == 1
    assert await read(store, USER, OTHER, gone) == {USER: packed(1), OTHER: packed(2)}


async def test_what_is_no_row_does_not_live_on(store):
    """
    A lease is its holder's, and that there is none is not what was read.
    """
    await lease(store, USER, OTHER)
    await fill(store, NO_ROW, key=OTHER)

    rows = [Filling(key, packed(1), 1) for key in (USER, OTHER)]
    assert await store.renew(rows, deadline_ms=ENOUGH_MS) == 0
    assert await read(store, USER, OTHER) == {USER: OURS, OTHER: NO_ROW}
