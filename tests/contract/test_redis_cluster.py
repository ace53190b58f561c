"""What only a cluster can get wrong: slots that move, nodes that end, seeds that are gone."""

import asyncio
import signal
import time
from contextlib import asynccontextmanager

import pytest
import redis
from redis.crc import key_slot

from core.errors import ConfigurationError, PartialWriteError, StoreError, StoreTimeoutError
from core.ports import RowKey, StoredRow
from services.redis_cluster import start_cluster
from services.server_process import HOST
from stores.redis_cluster import RedisClusterStore
from stores.redis_node import RedisLimits

ENOUGH_MS = 10_000
NODES, SLOTS = 3, 16_384
SHARE = -(-SLOTS // NODES)


def slot_of(key: RowKey) -> int:
    return key_slot(f"{{{key.pk}}}".encode())


def row(user, *, ver=1, sk="spend@v1", payload=b"x") -> StoredRow:
    return StoredRow(RowKey(f"user#i{user}", sk), ver, ver.to_bytes(8, "big") + payload)


def rows_of_node(node, number, **given) -> list[StoredRow]:
    """Rows of different users that the node's slots belong to when the cluster is new."""
    found = (row(user, **given) for user in range(10_000))
    mine = [each for each in found if slot_of(each.key) // SHARE == node]
    return mine[:number]


@pytest.fixture
def cluster(tmp_path):
    """Three nodes of the test's own, which it may stop."""
    started = start_cluster(tmp_path)
    yield started
    started.stop()


@asynccontextmanager
async def opened(url, **limits):
    store = RedisClusterStore(url, limits=RedisLimits(**{"connect_timeout_ms": 5_000} | limits))
    try:
        yield store
    finally:
        await store.close()


def client_of(cluster, node) -> redis.Redis:
    return redis.Redis(host=HOST, port=cluster.nodes[node].port)


def name_of(cluster, node) -> str:
    with client_of(cluster, node) as client:
        return client.execute_command("CLUSTER MYID").decode()


def move_keys(cluster, slot, source, target) -> None:
    with client_of(cluster, source) as client:
        for name in client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            client.execute_command("MIGRATE", HOST, cluster.nodes[target].port, name, 0, 5_000)


def begin_move(cluster, slot, source, target) -> None:
    with client_of(cluster, target) as client:
        client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", name_of(cluster, source))
    with client_of(cluster, source) as client:
        client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", name_of(cluster, target))


def finish_move(cluster, slot, source, target) -> None:
    move_keys(cluster, slot, source, target)
    for node in range(NODES):
        with client_of(cluster, node) as client:
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", name_of(cluster, target))


async def test_rows_lie_where_the_cluster_looks_for_them(redis_cluster, empty_cluster):
    """
    Other tools, and a cluster that is dealt out anew, would not find a row; and groups of one user would lie apart.
    """
    async with opened(redis_cluster.url) as store:
        groups = [row(7, sk=f"group{number}@v1") for number in range(20)]
        await store.write([*groups, *(row(user) for user in range(300))], deadline_ms=ENOUGH_MS)

    found = []
    for node in range(NODES):
        with client_of(redis_cluster, node) as client:
            found.append({name.decode() for name in client.keys("*")})
    assert sum(map(len, found)) == 320
    assert all(len(names) > 50 for names in found)
    assert [len([name for name in names if name.startswith("{user#i7}")]) for names in found].count(0) == NODES - 1


async def test_one_seed_is_enough_and_a_dead_one_is_passed_over(redis_cluster, empty_cluster):
    """
    A worker could not start while the first node of the list is being replaced.
    """
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{redis_cluster.nodes[1].port}"
    async with opened(url) as store:
        rows = [row(user) for user in range(100)]

        assert await store.write(rows, deadline_ms=ENOUGH_MS) == 100
        assert await store.read([each.key for each in rows], deadline_ms=ENOUGH_MS) == {
            each.key: each.value for each in rows
        }


async def test_a_slot_that_has_moved_is_followed_within_the_call(redis_cluster, empty_cluster):
    """
    While a cluster grows, every call of a moved slot would fail until somebody asked for the slots again.
    """
    (mine,) = rows_of_node(0, 1)
    async with opened(redis_cluster.url) as store:
        assert await store.write([mine, *rows_of_node(1, 3)], deadline_ms=ENOUGH_MS) == 4
        begin_move(redis_cluster, slot_of(mine.key), 0, 2)
        finish_move(redis_cluster, slot_of(mine.key), 0, 2)

        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: mine.value}
        assert await store.write([mine._replace(ver=2, value=row(0, ver=2).value)], deadline_ms=ENOUGH_MS) == 1

        begin_move(redis_cluster, slot_of(mine.key), 2, 0)
        finish_move(redis_cluster, slot_of(mine.key), 2, 0)
        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: row(0, ver=2).value}


async def test_a_slot_that_is_just_moving_is_asked_for_at_both_nodes(redis_cluster, empty_cluster):
    """
    Rows that were moved already, and new rows of a moving slot, would be missing or refused.
    """
    (mine,) = rows_of_node(0, 1)
    async with opened(redis_cluster.url) as store:
        await store.write([mine], deadline_ms=ENOUGH_MS)
        begin_move(redis_cluster, slot_of(mine.key), 0, 1)
        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: mine.value}
        move_keys(redis_cluster, slot_of(mine.key), 0, 1)

        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: mine.value}
        newer = row(mine.key.pk.removeprefix("user#i"), ver=2)
        assert await store.write([newer], deadline_ms=ENOUGH_MS) == 1
        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: newer.value}

        finish_move(redis_cluster, slot_of(mine.key), 0, 1)
        begin_move(redis_cluster, slot_of(mine.key), 1, 0)
        finish_move(redis_cluster, slot_of(mine.key), 1, 0)


async def test_a_dead_node_is_an_error_at_once_and_the_others_go_on(cluster):
    """
    One node's end would stop reads of everybody, or hang them until a client's hidden retries are over.
    """
    gone, left = rows_of_node(2, 3), rows_of_node(0, 3)
    async with opened(cluster.url) as store:
        await store.write([*gone, *left], deadline_ms=ENOUGH_MS)
        for node in range(2):
            with client_of(cluster, node) as client:
                # Else the others refuse everything after two seconds: a cache serves what it has.
                client.config_set("cluster-require-full-coverage", "no")
        cluster.nodes[2].stop()

        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(StoreError):
                await store.read([gone[0].key], deadline_ms=ENOUGH_MS)
            assert time.monotonic() - began < 2
            assert await store.read([left[0].key], deadline_ms=ENOUGH_MS) == {left[0].key: left[0].value}

        newer = [each._replace(ver=2, value=row(0, ver=2).value) for each in (*gone, *left)]
        with pytest.raises(PartialWriteError) as raised:
            await store.write(newer, deadline_ms=ENOUGH_MS)
        assert raised.value.failed == {each.key for each in gone}
        assert await store.read([left[0].key], deadline_ms=ENOUGH_MS) == {left[0].key: newer[-1].value}


async def test_a_silent_node_keeps_only_its_own_rows_back(redis_cluster, empty_cluster):
    """
    One node's trouble would make a debt of what all nodes took, to be paid to all of them again and again.
    """
    silent, left = rows_of_node(2, 3), [*rows_of_node(0, 3), *rows_of_node(1, 3)]
    async with opened(redis_cluster.url) as store:
        await store.write([row(1)], deadline_ms=ENOUGH_MS)
        redis_cluster.nodes[2].process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(PartialWriteError, match="no answer within 500 ms") as raised:
                await store.write([*silent, *left], deadline_ms=500)
        finally:
            redis_cluster.nodes[2].process.send_signal(signal.SIGCONT)

        assert raised.value.failed == {each.key for each in silent}
        assert len(await store.read([each.key for each in left], deadline_ms=ENOUGH_MS)) == len(left)


async def test_a_refused_row_does_not_keep_others_from_being_sent_on(redis_cluster, empty_cluster):
    """
    One bad key in a batch that is tried again would keep back all rows of slots that have moved, for ever.
    """
    (bad,), (mine,) = rows_of_node(2, 1), rows_of_node(0, 1)
    async with opened(redis_cluster.url) as store:
        await store.write([row(1)], deadline_ms=ENOUGH_MS)
        with client_of(redis_cluster, 2) as client:
            client.rpush(f"{{{bad.key.pk}}}{bad.key.sk}", "not a row")
        begin_move(redis_cluster, slot_of(mine.key), 0, 1)
        finish_move(redis_cluster, slot_of(mine.key), 0, 1)

        with pytest.raises(PartialWriteError, match="WRONGTYPE") as raised:
            await store.write([bad, mine], deadline_ms=ENOUGH_MS)

        assert raised.value.failed == {bad.key}
        assert await store.read([mine.key], deadline_ms=ENOUGH_MS) == {mine.key: mine.value}
        begin_move(redis_cluster, slot_of(mine.key), 1, 0)
        finish_move(redis_cluster, slot_of(mine.key), 1, 0)


async def test_more_callers_than_connections_wait_their_turn_at_each_node(redis_cluster, empty_cluster):
    """
    A burst would fail: redis-py's own cluster client raises for every call beyond its connections.
    """
    async with opened(redis_cluster.url, connections_max=1) as store:
        await store.write([row(1)], deadline_ms=ENOUGH_MS)

        answers = await asyncio.gather(*(store.read([row(1).key], deadline_ms=ENOUGH_MS) for _ in range(100)))

    assert answers == [{row(1).key: row(1).value}] * 100


async def test_a_cluster_that_is_away_is_an_error_with_its_places_and_without_its_password():
    """
    Whoever reads the log must learn where nobody answered, and nothing else.
    """
    async with opened("redis+cluster://user:s3cret@127.0.0.1:1,127.0.0.1:2") as store:
        with pytest.raises(StoreError, match=r"redis cluster 127\.0\.0\.1:1,127\.0\.0\.1:2: read of 1 keys") as raised:
            await store.read([row(1).key], deadline_ms=ENOUGH_MS)
        with pytest.raises(StoreTimeoutError, match="0 ms"):
            await store.read([row(1).key], deadline_ms=0)

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://host:1/3", "redis+cluster://:s3[cret@host:x"])
def test_a_cluster_url_that_is_none_is_refused(url):
    """
    A database number, which no cluster has, would silently be ignored.
    """
    with pytest.raises(ConfigurationError) as raised:
        RedisClusterStore(url)

    assert "s3[cret" not in str(raised.value)
