"""The client that reads features, against the routes that every worker has."""

import asyncio
import contextlib
import re

import pytest
from aiohttp.test_utils import TestServer

from client import AsyncFeatureClient, FeatureClient, ReadError
from core.errors import StoreError
from tests.serving_kit import NOW_MS, FailingStore, impression

IMPRESSIONS = "user_engagement:impressions_1h"


@pytest.fixture
async def url(kit):
    async with TestServer(kit.web_app()) as server:
        yield str(server.make_url("/"))


@pytest.fixture
async def client(url):
    async with AsyncFeatureClient(url) as client:
        yield client


async def test_features_are_columns_rows_and_what_is_known_of_them(kit, client):
    """
    An engine wants a number by its name, and to know whether it is one.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))

    features = await client.read([IMPRESSIONS], user_id=[1, 2])

    assert features.columns == {"user_id": [1, 2], "impressions_1h": [1, 0]}
    assert features.rows() == [{"user_id": 1, "impressions_1h": 1}, {"user_id": 2, "impressions_1h": 0}]
    assert features.statuses["impressions_1h"] == ["PRESENT", "NOT_FOUND"]
    assert features.event_times["impressions_1h"][0].startswith("2023-11-14T22:13:20")
    assert features.instant_ms >= NOW_MS


async def test_a_service_is_read_by_its_name(client):
    """
    What a model needs is declared once, not written into each engine.
    """
    features = await client.read("home_feed", user_id=[1])

    assert "impressions_1h" in features.columns


async def test_a_program_without_an_event_loop_reads_the_same(kit, url):
    """
    Notebooks and batch jobs read too.
    """
    await kit.take("impressions", impression(NOW_MS, user=1))

    def read():
        with FeatureClient(url) as client:
            return client.read([IMPRESSIONS], user_id=[1]).rows()

    assert await asyncio.to_thread(read) == [{"user_id": 1, "impressions_1h": 1}]


@pytest.mark.parametrize(
    ("names", "keys", "status", "told"),
    [
        ("home_fed", {"user_id": [1]}, 404, "feature service 'home_fed' does not exist; did you mean home_feed?"),
        ([IMPRESSIONS], {"user": [1]}, 400, "the key column 'user_id' of entity 'user' is missing"),
        ([IMPRESSIONS], {"user_id": ["1"]}, 400, "expected int, got str"),
    ],
)
async def test_a_mistake_is_told_in_the_workers_words(client, names, keys, status, told):
    """
    An error that says "400 Bad Request" costs an afternoon.
    """
    with pytest.raises(ReadError, match=re.escape(told)) as raised:
        await client.read(names, **keys)

    assert raised.value.status == status


async def test_a_record_that_is_away_is_told_with_its_status(kit):
    """
    Whoever reads decides: another worker, or a feed without features.
    """
    kit.record, kit.cache = FailingStore("record", StoreError("it is down")), None
    async with TestServer(kit.web_app()) as server, AsyncFeatureClient(str(server.make_url("/"))) as client:
        with pytest.raises(ReadError, match="the record store gives no answer") as raised:
            await client.read("home_feed", user_id=[1])

    assert raised.value.status == 503


async def test_nobody_there_is_told_as_such():
    """
    A worker that is started again refuses connections for a moment.
    """
    async with AsyncFeatureClient("http://127.0.0.1:1") as client:
        with pytest.raises(ReadError, match="no answer") as raised:
            await client.read("home_feed", user_id=[1])

    assert raised.value.status is None


def dribble(first: bytes, left: asyncio.Event):
    """Return what begins an answer and goes on with it, a byte now and then, until its client has left."""

    async def serve(reader, writer):
        await reader.readuntil(b"}}")
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        left.set()

    return serve


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_worker_that_hangs_or_dribbles_is_not_waited_for_longer_than_the_deadline(first, is_async):
    """
    Each piece of an answer came in time, and the last one after three seconds.
    """
    left = asyncio.Event()
    server = await asyncio.start_server(dribble(first, left), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def read():
        with FeatureClient(url, deadline_ms=200) as client:
            client.read(["g:f"], user_id=[1])

    async def read_async():
        async with AsyncFeatureClient(url, deadline_ms=200) as client:
            await client.read(["g:f"], user_id=[1])

    async with server:
        with pytest.raises(ReadError, match="no answer"):
            await asyncio.wait_for(read_async() if is_async else asyncio.to_thread(read), timeout=10)
        await asyncio.wait_for(left.wait(), timeout=10)


async def test_what_is_no_answer_of_a_worker_is_told_as_such():
    """
    A proxy's page for people came with status 200.
    """

    async def serve(reader, writer):
        await reader.readuntil(b"}}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, AsyncFeatureClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(ReadError, match="no answer of a worker: b'<html>'"):
            await client.read(["g:f"], user_id=[1])


@pytest.mark.parametrize("values", ["ann", 9.5])
def test_a_key_that_is_no_list_is_told(values):
    """
    A text was three keys of one letter each.
    """
    with FeatureClient("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="user_id: give a list"):
        client.read(["taste:price_7d"], user_id=values)
