"""Where workers listen: alone at a port, or several at one."""

import asyncio
import socket
from collections import Counter
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web

from app.front_site import FrontSite, Reception
from app.settings import Role, load_settings
from core.errors import ConfigurationError
from serving.web.answer import Answer
from serving.web.front_door import FrontDoor


class Named:
    """Reads that answer who they are."""

    def __init__(self, name: str, asked: Counter[str]) -> None:
        self._name, self._asked = name, asked

    def answer(self, _body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Answer:
        self._asked[self._name] += 1
        return Answer(200, b"{}")


async def listen(reads: Any, port: int, *, is_shared: bool) -> web.AppRunner:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    door = FrontDoor(reads, admits=lambda _: True)
    await FrontSite(runner, door, host="127.0.0.1", port=port, is_shared=is_shared).start()
    return runner


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_several_workers_share_a_port_and_its_connections():
    """
    One process uses one core: a machine with eight serves with eight workers, and clients know one address.
    """
    asked: Counter[str] = Counter()
    port = free_port()
    runners = [await listen(Named(name, asked), port, is_shared=True) for name in ("first", "second")]

    for _ in range(60):
        async with (
            ClientSession(connector=TCPConnector(force_close=False)) as session,
            session.post(f"http://127.0.0.1:{port}/get-online-features", data=b"{}") as answer,
        ):
            assert answer.status == 200
    for runner in runners:
        await runner.cleanup()

    assert asked.total() == 60
    assert set(asked) == {"first", "second"}


async def test_a_port_that_is_not_shared_is_taken_once():
    """
    A second worker that is started by mistake must say so, and not take half of the first one's requests.
    """
    port = free_port()
    runner = await listen(Named("first", Counter()), port, is_shared=False)

    with pytest.raises(OSError, match=r"(?i)address already in use"):
        await listen(Named("second", Counter()), port, is_shared=False)

    await runner.cleanup()


def test_only_serving_workers_share_a_port():
    """
    The port is in the name by which a worker that reads events is known to its group.
    """
    assert load_settings(role=Role.SERVING, share_port=True).share_port
    with pytest.raises(ConfigurationError, match="FRESHET_SHARE_PORT: only workers that serve alone"):
        load_settings(role=Role.ALL, share_port=True)


async def test_a_crowd_that_connects_is_accepted_in_one_turn():
    """
    One connection per turn of the loop, and 384 clients of a busy worker waited for three seconds before it knew of
    any of them.
    """
    port, made = free_port(), 0
    transports = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal made
            made += 1
            transports.append(transport)

    listener = socket.create_server(("127.0.0.1", port), backlog=200)
    listener.setblocking(False)  # noqa: FBT003  # the name of it
    reception = Reception([listener], Client)
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    await asyncio.sleep(0)
    turns = 0
    while made < len(crowd) and turns < 20:
        turns += 1
        await asyncio.sleep(0)
    reception.close()
    for client in (*crowd, *transports):
        client.close()
    await asyncio.sleep(0)

    assert made == len(crowd)
