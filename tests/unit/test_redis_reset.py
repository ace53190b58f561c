"""Connections that are reset while nobody uses them, on the loop that workers run on."""

import asyncio
import socket
import struct

import pytest
import uvloop

from core.errors import StoreError
from core.ports import RowKey
from stores.redis import RedisStore
from stores.redis_node import RedisLimits, RedisNode

KEY = RowKey("user#i1", "spend@v1")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class AbsentMinded:
    """A server that knows no key, and resets every connection when told to."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while await reader.read(4096):
            writer.write(b"*1\r\n$-1\r\n")
            await writer.drain()
        writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


async def read_before_and_after_a_reset() -> None:
    server = AbsentMinded()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        store = RedisStore(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0")
        assert await store.read([KEY], deadline_ms=1_000) == {}
        server.reset()
        # The client's end hears of it when the loop has turned a few times.
        await asyncio.sleep(0.05)

        with pytest.raises(StoreError, match="closed"):
            await store.read([KEY], deadline_ms=1_000)

        assert await store.read([KEY], deadline_ms=1_000) == {}
        await store.close()


def test_a_connection_that_was_reset_is_a_store_that_failed_once():
    """
    A fail-over or a firewall that forgets idle connections ended every worker, and reads with status 500: uvloop calls
    writing to such a connection a RuntimeError, which nobody expected of a network.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(read_before_and_after_a_reset())


class Surprising:
    """A connection that ends in a way in which connections do not end, and what makes such."""

    connection_kwargs: dict[str, str] = {}  # noqa: RUF012  # as redis-py's
    is_connected = False

    def make_connection(self) -> "Surprising":
        return self

    async def connect(self) -> None:
        raise RuntimeError("nobody expected this")

    async def disconnect(self, *, nowait: bool) -> None: ...


async def test_callers_that_go_together_are_told_whatever_ended_their_connection():
    """
    They would wait until their deadlines, and the operator would look for a Redis that is slow.
    """
    node = RedisNode(Surprising(), RedisLimits())

    told = await asyncio.gather(node.share(b""), node.share(b""), return_exceptions=True)

    assert list(map(str, told)) == ["nobody expected this"] * 2
