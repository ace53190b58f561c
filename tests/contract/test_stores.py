"""The contract of every store, then what only SQLite or only Redis can get wrong."""

import asyncio
import itertools
import signal
import sqlite3
import time
import traceback
from contextlib import closing

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ConfigurationError, PartialWriteError, StoreError, StoreTimeoutError
from core.ports import RowKey, StoredRow
from services.redis_server import start_redis
from stores.memory import MemoryStore
from stores.redis import RedisStore
from stores.redis_node import RedisLimits
from stores.sqlite import EXPIRED_ROWS_MAX, SqliteStore
from tests.clock import ManualClock

USER = RowKey("user#i1", "spend@v1")
OTHER = RowKey("user#i2", "spend@v1")
ENOUGH_MS = 60_000

EXAMPLE = itertools.count()


def row(key=USER, *, ver=1, payload=b"", expires_at_ms=None):
    return StoredRow(key, ver, ver.to_bytes(8, "big") + payload, expires_at_ms)


async def write(store, *rows):
    return await store.write(rows, deadline_ms=ENOUGH_MS)


async def read(store, *keys):
    return await store.read(keys, deadline_ms=ENOUGH_MS)


async def read_ver(store, key=USER):
    return int.from_bytes((await read(store, key))[key][:8], "big")


# --- every store


async def test_a_row_is_read_as_it_was_written(store):
    """
    A model would be served other bytes than the aggregator computed.
    """
    written = row(payload=bytes(range(256)))

    taken = await write(store, written)

    assert taken == 1
    assert await read(store, USER) == {USER: written.value}


async def test_a_missing_key_is_absent(store):
    """
    A reader that counts answers would take an unknown user for a known one.
    """
    await write(store, row())

    rows = await read(store, OTHER, USER)

    assert rows.keys() == {USER}


async def test_a_key_asked_for_twice_is_answered(store):
    """
    A request that names one user twice would fail.
    """
    await write(store, row())

    rows = await read(store, USER, USER)

    assert rows == {USER: row().value}


async def test_a_newer_version_replaces_an_older_one(store):
    """
    Everybody would be served the first value for ever.
    """
    await write(store, row(ver=1, payload=b"a longer value"))

    taken = await write(store, row(ver=2, payload=b"short"))

    assert taken == 1
    assert await read(store, USER) == {USER: row(ver=2, payload=b"short").value}


@pytest.mark.parametrize("late", [1, 2])
async def test_an_equal_or_older_version_is_refused_and_counted(store, late):
    """
    A zombie's write that arrives late would undo what its successor wrote.
    """
    await write(store, row(ver=2, payload=b"kept"))

    taken = await write(store, row(ver=late, payload=b"late"), row(OTHER))

    assert taken == 1
    assert await read(store, USER) == {USER: row(ver=2, payload=b"kept").value}


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (0, 1),
        (127, 128),
        (255, 256),
        (2**32 - 1, 2**32),
        (2**53, 2**53 + 1),
        (2**63 - 1, 2**63),
        (2**63, 2**63 + 1),
        (2**64 - 2, 2**64 - 1),
        (1, 2**64 - 1),
        (0x61FF, 0x6200),
        (ord("B"), ord("a")),
    ],
)
async def test_versions_are_compared_as_unsigned_64_bit_numbers(store, lower, higher):
    """
    A store that compares floats, signed numbers or text in a locale would refuse the newest rows of a high epoch.
    """
    assert await write(store, row(ver=lower)) == 1
    assert await write(store, row(ver=higher)) == 1

    taken = await write(store, row(ver=lower))

    assert taken == 0
    assert await read_ver(store) == higher


@pytest.mark.parametrize(("vers", "taken"), [((3, 7), 2), ((7, 3), 1), ((7, 7), 1)])
async def test_two_rows_of_one_key_in_a_batch_leave_the_higher(store, vers, taken):
    """
    A flush that holds a row twice would leave whichever came last.
    """
    assert await write(store, *[row(ver=ver) for ver in vers]) == taken

    assert await read_ver(store) == 7


async def test_a_batch_of_5000_rows_is_written_and_read(store):
    """
    A catch-up after an outage writes batches larger than any limit of one statement or script.
    """
    rows = [row(RowKey(f"user#i{number}", "spend@v1"), ver=number) for number in range(5_000)]

    taken = await write(store, *rows)

    assert taken == 5_000
    assert await read(store, *[each.key for each in rows]) == {each.key: each.value for each in rows}


async def test_values_of_400_kilobytes_are_kept_whole(store):
    """
    The worst row that the record accepts would stop its partition.
    """
    rows = [row(RowKey(f"user#i{number}", "big@v1"), payload=bytes([number]) * 400_000) for number in range(5)]

    await write(store, *rows)

    assert await read(store, *[each.key for each in rows]) == {each.key: each.value for each in rows}


async def test_keys_differ_by_every_code_point(store):
    """
    Two users whose names only look alike would share their features.
    """
    names = ["é", "e\u0301", "E", "e", "日本語", "\U0001d518", "a,b", "a b", "a'b", 'a"b', "a?b", "%7B"]
    rows = [row(RowKey(f"user#s{name}", "spend@v1"), ver=ver) for ver, name in enumerate(names)]

    taken = await write(store, *rows)

    assert taken == len(names)
    assert await read(store, *[each.key for each in rows]) == {each.key: each.value for each in rows}


async def test_groups_of_one_entity_are_separate_rows(store):
    """
    One group's write would replace or hide another's.
    """
    rows = [row(RowKey("user#i1", f"group{number}@v1"), ver=number) for number in range(200)]

    await write(store, *rows)

    assert await read(store, *[each.key for each in rows]) == {each.key: each.value for each in rows}


async def test_empty_batches_are_answered_with_nothing(store):
    """
    A flush with nothing to write would stop the worker.
    """
    assert await write(store) == 0
    assert await read(store) == {}


async def test_a_row_past_its_expiry_is_not_returned(store, clock):
    """
    Somebody who came back after a year would be served last year's hour.
    """
    soon = clock.now_ms() + 40
    await write(store, row(expires_at_ms=soon), row(OTHER, expires_at_ms=soon + 600_000))

    clock.advance(60)

    assert (await read(store, USER, OTHER)).keys() == {OTHER}


async def test_a_row_that_is_written_past_its_expiry_is_not_returned(store, clock):
    """
    A replay of old events would bring dead rows back to life.
    """
    await write(store, row(expires_at_ms=clock.now_ms() - 1_000))

    assert await read(store, USER) == {}


async def test_an_expired_row_does_not_stand_in_the_way(store, clock):
    """
    A group whose versions begin anew would stay empty behind rows that nobody can read.
    """
    await write(store, row(ver=9, expires_at_ms=clock.now_ms() + 40))
    clock.advance(60)

    taken = await write(store, row(ver=3))

    assert taken == 1
    assert await read_ver(store) == 3


async def test_a_later_write_without_expiry_ends_the_expiry(store, clock):
    """
    A row that lives for ever now would vanish at the old hour.
    """
    await write(store, row(ver=1, expires_at_ms=clock.now_ms() + 40))
    await write(store, row(ver=2))

    clock.advance(60)

    assert await read_ver(store) == 2


async def test_a_refused_write_does_not_change_the_expiry(store, clock):
    """
    A late write would let the newest row vanish.
    """
    await write(store, row(ver=2))
    await write(store, row(ver=1, expires_at_ms=clock.now_ms() + 40))

    clock.advance(60)

    assert await read_ver(store) == 2


async def test_concurrent_writers_leave_the_highest_version(store):
    """
    Two owners of one partition during a take-over would leave the row of whoever was slower.
    """
    # 73 and 201 have no common divisor: every number from 1 to 200 once, in disorder.
    vers = [number * 73 % 201 for number in range(1, 201)]

    taken = await asyncio.gather(*[write(store, row(ver=ver)) for ver in vers])

    assert await read_ver(store) == 200
    assert 1 <= sum(taken) <= 200


async def test_a_deadline_that_cannot_be_met_is_a_timeout(store):
    """
    A request would wait for a store instead of falling back to the next tier.
    """
    with pytest.raises(StoreTimeoutError, match="0 ms"):
        await store.read([USER], deadline_ms=0)
    with pytest.raises(StoreTimeoutError, match="0 ms"):
        await store.write([row()], deadline_ms=0)

    assert await write(store, row(OTHER)) == 1


KEYS = st.integers(0, 4)
VERS = st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1), st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, 2**63]))
BATCHES = st.lists(st.lists(st.tuples(KEYS, VERS, st.binary(max_size=20)), max_size=12), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
async def test_any_sequence_of_writes_leaves_the_highest_version(store, batches):
    """
    Some order of retries, replays and take-overs would leave an old row for good.
    """
    example = next(EXAMPLE)
    held = {}
    for batch in batches:
        rows = [
            row(RowKey(f"example{example}#i{key}", "g@v1"), ver=ver, payload=payload) for key, ver, payload in batch
        ]
        expected = 0
        for each in rows:
            if each.key not in held or each.ver > held[each.key].ver:
                held[each.key] = each
                expected += 1

        assert await write(store, *rows) == expected

    keys = [RowKey(f"example{example}#i{key}", "g@v1") for key in range(5)]
    assert await read(store, *keys) == {key: each.value for key, each in held.items()}


# --- SQLite


@pytest.fixture
def record_path(tmp_path):
    return tmp_path / "record.sqlite"


async def test_sqlite_keeps_rows_when_it_is_opened_again(record_path):
    """
    A restart would lose the record.
    """
    first = SqliteStore(record_path, ManualClock())
    await write(first, row(ver=2**64 - 1))
    await first.close()

    second = SqliteStore(record_path, ManualClock())

    assert await read_ver(second) == 2**64 - 1
    assert await write(second, row(ver=5)) == 0
    await second.close()


def keys_in(record_path) -> list[str]:
    with closing(sqlite3.connect(record_path)) as connection:
        return [pk for (pk,) in connection.execute("SELECT pk FROM rows")]


async def test_sqlite_removes_expired_rows_from_the_file(record_path):
    """
    The file would grow with everyone who was ever seen.
    """
    clock = ManualClock()
    store = SqliteStore(record_path, clock)
    dying = [
        row(RowKey(f"user#i{number}", "g@v1"), expires_at_ms=clock.now_ms() + 1) for number in range(EXPIRED_ROWS_MAX)
    ]
    await write(store, *dying)
    clock.advance(1)

    await write(store, row(OTHER))

    await store.close()
    assert keys_in(record_path) == [OTHER.pk]


async def test_sqlite_keeps_a_row_whose_later_version_expires_later(record_path):
    """
    It is looked at when its first version would have expired, and once more when the last one does.
    """
    clock = ManualClock()
    store = SqliteStore(record_path, clock)
    await write(store, row(ver=1, expires_at_ms=clock.now_ms() + 10))
    await write(store, row(ver=2, expires_at_ms=clock.now_ms() + 20))
    clock.advance(10)
    await write(store, row(OTHER))
    assert await read_ver(store) == 2

    clock.advance(10)
    await write(store, row(OTHER, ver=2))

    await store.close()
    assert keys_in(record_path) == [OTHER.pk]


async def test_sqlite_removes_a_row_that_did_not_expire_before_its_last_version(record_path):
    """
    A group whose window ends once had one for all time.
    """
    clock = ManualClock()
    store = SqliteStore(record_path, clock)
    await write(store, row(ver=1))
    await write(store, row(ver=2, expires_at_ms=clock.now_ms() + 10))
    clock.advance(86_400_000)

    await write(store, row(OTHER))

    await store.close()
    assert keys_in(record_path) == [OTHER.pk]


async def test_sqlite_opens_a_file_of_a_former_release(record_path):
    """
    Whoever upgrades keeps his record; its rows expire as they would have.
    """
    clock = ManualClock()
    connection = sqlite3.connect(record_path)
    connection.execute(
        "CREATE TABLE rows (pk TEXT NOT NULL, sk TEXT NOT NULL, ver INTEGER NOT NULL, expires_at_ms INTEGER, "
        "value BLOB NOT NULL, PRIMARY KEY (pk, sk)) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX rows_by_expiry ON rows (expires_at_ms) WHERE expires_at_ms IS NOT NULL")
    for number, expires_at_ms in enumerate((clock.now_ms() + 10, None)):
        connection.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
            (f"user#i{number}", "g@v1", -(2**63) + 7, expires_at_ms, row(ver=7).value),
        )
    connection.commit()
    connection.close()

    store = SqliteStore(record_path, clock)
    first, second = (RowKey(f"user#i{number}", "g@v1") for number in range(2))
    assert set(await store.read([first, second], deadline_ms=1_000)) == {first, second}
    clock.advance(10)
    await write(store, row(OTHER))
    await store.close()
    again = SqliteStore(record_path, clock)
    assert set(await again.read([first, second, OTHER], deadline_ms=1_000)) == {second, OTHER}
    await again.close()


async def test_sqlite_removes_more_rows_than_a_write_adds(record_path):
    """
    Under load every write adds more rows than a fixed number that it would remove, and the file would grow for ever.
    """
    clock = ManualClock()
    store = SqliteStore(record_path, clock)
    for generation in range(4):
        await write(
            store,
            *(
                row(RowKey(f"user#i{generation}-{number}", "g@v1"), expires_at_ms=clock.now_ms() + 1)
                for number in range(3 * EXPIRED_ROWS_MAX)
            ),
        )
        clock.advance(1)

    await store.close()
    connection = sqlite3.connect(record_path)
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (3 * EXPIRED_ROWS_MAX,)
    connection.close()


async def test_memory_keeps_no_more_expired_rows_than_others():
    """
    Where it is the record, it would hold everyone who was ever seen.
    """
    clock = ManualClock()
    store = MemoryStore(clock)
    for generation in range(5):
        await write(
            store,
            row(RowKey(f"user#i{generation}", "g@v1")),
            *(
                row(RowKey(f"user#i{generation}-{number}", "g@v1"), expires_at_ms=clock.now_ms() + 1)
                for number in range(10_000)
            ),
        )
        clock.advance(1)

    assert len(store._rows) < 25_000
    assert len(await read(store, *(RowKey(f"user#i{generation}", "g@v1") for generation in range(5)))) == 5


async def test_sqlite_answers_within_the_deadline_while_another_process_writes(record_path):
    """
    A split role that holds the file's lock would stop the event loop or the partition for good.
    """
    store = SqliteStore(record_path, ManualClock())
    other = sqlite3.connect(record_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreTimeoutError, match="30 ms"):
        await store.write([row(ver=1)], deadline_ms=30)

    assert await read(store, USER) == {}
    other.execute("ROLLBACK")
    other.close()
    assert await write(store, row(ver=2)) == 1
    await store.close()


async def test_sqlite_writes_all_of_a_batch_or_nothing(record_path):
    """
    A failed flush would leave half of its rows, and the connection inside a transaction.
    """
    store = SqliteStore(record_path, ManualClock())
    rows = [row(RowKey(f"user#i{number}", "g@v1")) for number in range(600)]
    broken = StoredRow(OTHER, 1, None)

    with pytest.raises(StoreError, match="write of 601 rows"):
        await write(store, *rows, broken)

    assert await read(store, *[each.key for each in rows]) == {}
    assert await write(store, *rows) == 600
    await store.close()


async def test_sqlite_says_which_file_is_none(record_path):
    """
    Whoever points the record at the wrong file would not learn which.
    """
    record_path.write_bytes(b"not a database, but long enough to look like one" * 100)

    with pytest.raises(StoreError, match=r"record\.sqlite"):
        SqliteStore(record_path, ManualClock())


# --- Redis


@pytest.fixture
async def redis_pair(tmp_path):
    """A server that the test may stop, and a store with a single connection to it."""
    server = start_redis(tmp_path)
    store = RedisStore(server.url, limits=RedisLimits(connections_max=1))
    yield server, store
    await store.close()
    server.stop()


async def test_dead_redis_is_an_error_at_once_and_works_when_it_is_back(redis_pair, tmp_path):
    """
    Hidden retries would turn a restart of Redis into seconds of waiting for every request.
    """
    server, store = redis_pair
    await write(store, row())
    server.stop()

    for call in (read(store, USER), write(store, row(ver=2)), read(store, USER)):
        began = time.monotonic()
        with pytest.raises(StoreError):
            await call
        assert time.monotonic() - began < 1

    again = start_redis(tmp_path, port=server.port)
    try:
        assert await read(store, USER) == {}
        assert await write(store, row()) == 1
    finally:
        again.stop()


async def test_restarted_redis_costs_an_idle_store_nothing(redis_pair, tmp_path):
    """
    Every connection of the pool would fail one request after each restart of Redis.
    """
    server, store = redis_pair
    await write(store, row())
    server.stop()
    again = start_redis(tmp_path, port=server.port)
    # The end of the old connection is seen by the event loop, which did not run meanwhile.
    await asyncio.sleep(0.01)

    try:
        assert await write(store, row()) == 1
    finally:
        again.stop()


async def test_stalled_redis_costs_neither_a_connection_nor_an_answer(redis_pair):
    """
    After a pause of Redis a pool would be empty for good, or somebody would get the answer to another's question.
    """
    server, store = redis_pair
    await write(store, row(payload=b"user"), row(OTHER, payload=b"other"))
    server.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(StoreTimeoutError, match="30 ms"):
                await store.read([USER], deadline_ms=30)
            assert time.monotonic() - began < 1
    finally:
        server.process.send_signal(signal.SIGCONT)

    assert await read(store, OTHER) == {OTHER: row(OTHER, payload=b"other").value}


async def test_more_callers_than_connections_wait_their_turn(redis_pair):
    """
    A burst of requests would fail instead of waiting a millisecond.
    """
    _, store = redis_pair
    await write(store, row())

    answers = await asyncio.gather(*[read(store, USER) for _ in range(100)])

    assert answers == [{USER: row().value}] * 100


async def test_small_reads_of_one_moment_go_together(redis_pair):
    """
    To wake Redis and to be woken costs more than a read of one user does.
    """
    server, store = redis_pair
    await write(store, row())
    with redis.Redis.from_url(server.url) as client:
        before = client.info("stats")["total_reads_processed"]
        await asyncio.gather(*[read(store, USER) for _ in range(200)])

        assert client.info("stats")["total_reads_processed"] - before < 20


async def test_who_goes_away_costs_others_of_the_same_moment_nothing(redis_pair):
    """
    A client that closes its connection would fail those who happened to ask with it.
    """
    _, store = redis_pair
    await write(store, row(), row(OTHER, ver=2))
    reads = [asyncio.create_task(read(store, key)) for key in (USER, OTHER, USER)]
    await asyncio.sleep(0)

    reads[0].cancel()
    reads[2].cancel()

    assert await reads[1] == {OTHER: row(OTHER, ver=2).value}
    assert await read(store, USER) == {USER: row().value}


@pytest.fixture
async def busy(redis_pair):
    """The store, its only connection taken by a read of many rows."""
    _, store = redis_pair
    many = asyncio.create_task(read(store, *(RowKey(f"user#i{number}", "spend@v1") for number in range(2_000))))
    await asyncio.sleep(0)
    yield store
    await many


async def test_who_comes_as_the_last_of_those_who_wait_goes_is_answered(busy):
    """
    Redis lags, the deadlines of all who wait are over in one moment, and a read that begins then would wait in vain.
    """
    waiting = asyncio.create_task(read(busy, USER))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)

    assert await busy.read([USER], deadline_ms=5_000) == {}
    assert waiting.cancelled()


async def test_nothing_is_sent_for_who_has_gone_before_there_was_a_connection(busy):
    """
    A lease whose holder has gone keeps all readers of the row waiting, in the moment in which there is most to do.
    """
    lease = asyncio.create_task(busy.lease([USER], token=b"token", lease_ms=ENOUGH_MS, deadline_ms=ENOUGH_MS))
    other = asyncio.create_task(read(busy, OTHER))
    await asyncio.sleep(0)

    lease.cancel()

    assert await other == {}
    assert await read(busy, USER) == {}


async def test_what_is_refused_to_one_is_answered_to_others_of_the_same_moment(redis_pair):
    """
    One bad key would fail everybody who happened to ask with it.
    """
    server, store = redis_pair
    await write(store, row(OTHER))
    with redis.Redis.from_url(server.url) as client:
        client.rpush(f"{{{USER.pk}}}{USER.sk}", "not a row")
    lease = store.lease([USER], token=b"token", lease_ms=1_000, deadline_ms=ENOUGH_MS)

    refused, found = await asyncio.gather(lease, read(store, OTHER), return_exceptions=True)

    assert isinstance(refused, StoreError)
    assert found == {OTHER: row(OTHER).value}


async def test_redis_forgets_scripts_and_the_store_does_not_mind(redis_pair):
    """
    A fail-over to a fresh server would refuse every write.
    """
    server, store = redis_pair
    await write(store, row(ver=1))
    with redis.Redis.from_url(server.url) as client:
        client.script_flush()

    assert await write(store, row(ver=2)) == 1


async def test_refused_command_leaves_the_connection_in_step(redis_pair):
    """
    After one bad key every caller of that connection would get the answer to the question before.
    """
    server, store = redis_pair
    with redis.Redis.from_url(server.url) as client:
        client.rpush(f"{{{USER.pk}}}{USER.sk}", "not a row")
    rows = [row(RowKey(f"user#i{number}", "g@v1"), ver=number) for number in range(300)]

    with pytest.raises(StoreError, match="WRONGTYPE"):
        await write(store, row(), *rows)

    await write(store, *rows)
    assert await read(store, rows[7].key) == {rows[7].key: rows[7].value}


async def test_one_bad_key_costs_only_the_rows_of_its_script(redis_pair):
    """
    Rows that Redis has would be owed to it with the bad one, and sent again and again.
    """
    server, store = redis_pair
    with redis.Redis.from_url(server.url) as client:
        client.rpush(f"{{{USER.pk}}}{USER.sk}", "not a row")
    rows = [row(RowKey(f"user#i{number}", "g@v1")) for number in range(300)]

    with pytest.raises(PartialWriteError, match="WRONGTYPE") as raised:
        await write(store, *rows, row())

    assert USER in raised.value.failed
    assert len(raised.value.failed) < 128
    taken = {one.key for one in rows} - raised.value.failed
    assert (await read(store, *taken)).keys() == taken
    with pytest.raises(StoreError) as nothing_else:
        await write(store, row())
    assert not isinstance(nothing_else.value, PartialWriteError)


async def test_redis_keys_carry_the_entity_as_hash_tag(redis_pair):
    """
    In a cluster the groups of one user would lie on many nodes, and other tools would not find a row by its name.
    """
    server, store = redis_pair
    await write(store, row())

    with redis.Redis.from_url(server.url) as client:
        assert client.get("{user#i1}spend@v1") == row().value


@pytest.mark.parametrize("url", ["redis://user:s3cret@127.0.0.1:1/0", "redis://:s3cret@127.0.0.1:1/0"])
async def test_password_appears_in_no_error_of_an_unreachable_redis(url):
    """
    Whoever reads the logs would own the cache.
    """
    store = RedisStore(url)

    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1") as raised:
        await read(store, USER)

    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    await store.close()


@pytest.mark.parametrize(
    "url", ["redis://:s3cret/with#signs@host:6379/0", "http://:s3cret@host", "redis://:s3[cret@host"]
)
def test_password_appears_in_no_error_of_an_unreadable_url(url):
    """
    A typo in a setting would publish the password in the log of the start.
    """
    with pytest.raises(ConfigurationError) as raised:
        RedisStore(url)

    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__
