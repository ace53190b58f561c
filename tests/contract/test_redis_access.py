"""TLS and users of Redis, and what a start makes of settings that cannot work (docs/how-to/redis.md)."""

import asyncio
import logging
import re
import traceback
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis

from app.cache_check import check_cache
from core.errors import ConfigurationError, StoreError
from core.ports import RowKey, StoredRow
from services.redis_cluster import start_cluster
from services.redis_server import start_redis
from services.server_process import free_ports
from stores.redis import RedisStore
from stores.redis_cluster import RedisClusterStore
from stores.redis_node import RedisLimits
from tests.tls import CA, tls_in_front_of

ENOUGH_MS = 10_000
USER = RowKey("user#i1", "spend@v1")
ROW = StoredRow(USER, 1, (1).to_bytes(8, "big") + b"row")
PATIENT = RedisLimits(connect_timeout_ms=5_000)
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"


def documented_rules() -> dict[str, str]:
    """The lines of the how-to, by user."""
    lines = re.findall(r"^ACL SETUSER (\S+) (.*)$", HOW_TO.read_text(), flags=re.MULTILINE)
    return dict(lines)


def add_users(url) -> None:
    """Run the how-to's lines, with passwords that are as good as any."""
    with redis.Redis.from_url(url) as client:
        for user, rules in documented_rules().items():
            client.execute_command("ACL", "SETUSER", user, *re.sub(r">\S+", f">{user}-pw", rules).split())


def url_of(port, user, *, scheme="redis") -> str:
    return f"{scheme}://{user}:{user}-pw@127.0.0.1:{port}"


@pytest.fixture(scope="module")
def port(redis_server):
    """The port of a Redis with the how-to's users."""
    add_users(redis_server.url)
    yield int(redis_server.url.rpartition(":")[2].partition("/")[0])
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "DELUSER", *documented_rules())


@asynccontextmanager
async def opened(url, *, kind=RedisStore, ca=None, limits=PATIENT):
    store = kind(url, ca=ca, limits=limits)
    try:
        yield store
    finally:
        await store.close()


async def write(store, row=ROW):
    return await store.write([row], deadline_ms=ENOUGH_MS)


async def read(store, key=USER):
    return await store.read([key], deadline_ms=ENOUGH_MS)


# --- users


async def test_the_writer_of_the_how_to_suffices_for_the_pipeline(port):
    """
    Whoever follows the how-to would find rows owed for ever.
    """
    async with opened(url_of(port, "freshet-writer")) as store:
        await check_cache(store, writes=True)

        await write(store, ROW._replace(expires_at_ms=4_102_444_800_000))

        assert await read(store) == {USER: ROW.value}


async def test_the_reader_of_the_how_to_reads_and_cannot_write(port):
    """
    A serving worker that is taken over must not be able to change what everybody reads.
    """
    async with opened(url_of(port, "freshet-writer")) as store:
        await write(store)
    async with opened(url_of(port, "freshet-reader")) as store:
        await check_cache(store, writes=False)

        assert await read(store) == {USER: ROW.value}
        with pytest.raises(StoreError, match="permission"):
            await write(store, ROW._replace(ver=2))
        assert await read(store) == {USER: ROW.value}


@pytest.mark.parametrize("command", ["KEYS *", "FLUSHALL", "CONFIG GET *", "SET other 1", "GET other", "ACL LIST"])
@pytest.mark.parametrize("user", ["freshet-reader", "freshet-writer"])
def test_neither_user_may_do_anything_else(port, user, command):
    """
    Other applications' keys lie in the same Redis, and a scan of all keys stops it for everybody.
    """
    with (
        redis.Redis.from_url(url_of(port, user)) as client,
        pytest.raises((redis.exceptions.NoPermissionError, redis.exceptions.ResponseError), match="permission"),
    ):
        client.execute_command(*command.split())


async def test_both_users_suffice_on_a_cluster(redis_cluster, empty_cluster):
    """
    A cluster needs two more commands, which nobody would guess.
    """
    for node in redis_cluster.nodes:
        add_users(node.url)
    hosts = redis_cluster.url.removeprefix("redis+cluster://")
    writer, reader = (f"redis+cluster://{user}:{user}-pw@{hosts}" for user in ("freshet-writer", "freshet-reader"))

    async with opened(writer, kind=RedisClusterStore) as store:
        await check_cache(store, writes=True)
        await write(store)
    async with opened(reader, kind=RedisClusterStore) as store:
        await check_cache(store, writes=False)
        assert await read(store) == {USER: ROW.value}
        with pytest.raises(ConfigurationError, match="rules that this role needs"):
            await check_cache(store, writes=True)


# --- TLS


async def test_rows_go_through_tls_to_a_host_whose_name_is_verified(port):
    """
    In many companies nothing else is allowed to leave a machine.
    """
    async with (
        tls_in_front_of(port) as tls_port,
        opened(url_of(tls_port, "freshet-writer", scheme="rediss"), ca=CA) as store,
    ):
        await check_cache(store, writes=True)
        await write(store, ROW._replace(key=RowKey("user#i2", "g@v1")))

        assert await read(store, RowKey("user#i2", "g@v1")) == {RowKey("user#i2", "g@v1"): ROW.value}


async def test_a_cluster_is_reached_through_tls_too(tmp_path):
    """
    The nodes that the cluster tells of would be spoken to in the clear, password included.
    """
    ports = free_ports(3)
    cluster = start_cluster(tmp_path, announced=ports)
    try:
        async with AsyncExitStack() as stack:
            for node, port in zip(cluster.nodes, ports, strict=True):
                await stack.enter_async_context(tls_in_front_of(node.port, at=port))
            url = f"rediss+cluster://127.0.0.1:{ports[0]}"
            store = await stack.enter_async_context(opened(url, kind=RedisClusterStore, ca=CA))
            await check_cache(store, writes=True)
            rows = [ROW._replace(key=RowKey(f"user#i{user}", "g@v1")) for user in range(50)]

            assert await store.write(rows, deadline_ms=ENOUGH_MS) == 50
            assert len(await store.read([row.key for row in rows], deadline_ms=ENOUGH_MS)) == 50
    finally:
        cluster.stop()


# --- a start with settings that cannot work


async def refusal(url, *, kind=RedisStore, ca=None, writes=True) -> str:
    async with opened(url, kind=kind, ca=ca) as store:
        with pytest.raises(ConfigurationError) as raised:
            await check_cache(store, writes=writes)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    return str(raised.value)


@pytest.mark.parametrize("user", ["freshet-writer:s3cret@", "nobody:s3cret@", ":s3cret@"])
async def test_a_wrong_password_stops_the_start(port, user):
    """
    The worker would run without its cache until somebody looked at the latency.
    """
    told = await refusal(f"redis://{user}127.0.0.1:{port}")

    assert told.startswith(f"FRESHET_REDIS: redis 127.0.0.1:{port}: read of 2 keys: ")
    assert "give the right user and password: redis://user:password@host:port" in told
    assert "\n" not in told


async def test_a_missing_password_stops_the_start(tmp_path):
    """
    As a wrong one does.
    """
    server = start_redis(tmp_path, extra={"requirepass": "s3cret"})
    try:
        assert "give the right user and password" in await refusal(server.url)
    finally:
        server.stop()


async def test_a_writer_without_the_right_to_write_stops_the_start(port):
    """
    Every row would be owed, and after 200,000 of them the partitions would wait.
    """
    assert "rules that this role needs" in await refusal(url_of(port, "freshet-reader"))


async def test_a_replica_stops_the_start_of_a_writer_and_not_of_a_reader(tmp_path):
    """
    Of a managed Redis two addresses are shown, and one of them takes no row, for ever.
    """
    server = start_redis(tmp_path)
    try:
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", 1)
        told = await refusal(server.url)
        async with opened(server.url) as store:
            await check_cache(store, writes=False)
    finally:
        server.stop()

    assert "name the primary (ElastiCache's primary endpoint" in told
    assert "\n" not in told


@pytest.mark.parametrize(("certificate", "ca"), [("elsewhere.pem", CA), ("localhost.pem", None)])
async def test_a_certificate_of_another_host_or_authority_stops_the_start(port, certificate, ca):
    """
    Somebody between us and Redis would be trusted with the password and with every row.
    """
    async with tls_in_front_of(port, certificate=certificate) as tls_port:
        told = await refusal(f"rediss://127.0.0.1:{tls_port}", ca=ca)

    assert "CERTIFICATE_VERIFY_FAILED" in told
    assert "set FRESHET_REDIS_CA" in told


async def test_an_answer_that_is_no_tls_stops_the_start():
    """
    The handshake's own words say nothing to anybody.
    """

    async def answer(reader, writer):
        await reader.read(1)
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        assert "use redis:// instead of rediss://" in await refusal(f"rediss://127.0.0.1:{port}", ca=CA)


async def test_a_redis_without_tls_is_taken_for_one_that_is_away(port, caplog):
    """
    It waits for the end of a line and says nothing; the how-to tells what to make of the warning.
    """
    async with opened(f"rediss://127.0.0.1:{port}", ca=CA, limits=RedisLimits(connect_timeout_ms=50)) as store:
        with caplog.at_level(logging.WARNING):
            await check_cache(store, writes=True)

    assert f"cache does not answer, going on without it until it does: redis 127.0.0.1:{port}: " in caplog.text


async def test_a_cluster_where_one_server_was_named_and_the_reverse_stop_the_start(port, redis_cluster):
    """
    Two of three reads would fail, or all of them.
    """
    assert "use redis+cluster://" in await refusal(redis_cluster.nodes[0].url)
    told = await refusal(f"redis+cluster://127.0.0.1:{port}", kind=RedisClusterStore)
    assert "it is no cluster: use redis://" in told


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_stops_the_start(tmp_path, content):
    """
    It would be an error of every single connection instead.
    """
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match=re.escape(f"{path} has no certificates")):
        RedisStore("rediss://127.0.0.1:1", ca=path)


@pytest.mark.parametrize("kind", [RedisStore, RedisClusterStore])
async def test_a_redis_that_is_away_does_not_stop_the_start(kind, caplog):
    """
    It is a cache: a worker that is restarted while Redis is down must serve from the record.
    """
    scheme = "redis" if kind is RedisStore else "redis+cluster"
    async with opened(f"{scheme}://127.0.0.1:1", kind=kind) as store:
        with caplog.at_level(logging.WARNING):
            await check_cache(store, writes=True)

    assert "cache does not answer, going on without it" in caplog.text
    await asyncio.wait_for(check_cache(None, writes=True), timeout=1)
