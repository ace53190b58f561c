"""The place that a worker listens at: connections come to the front door first, then to aiohttp's web server."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiohttp import web
from typing_extensions import override
from yarl import URL

from serving.web.front_door import FrontDoor

log = logging.getLogger(__name__)

_AT_ONCE = 32
_PAUSE_S = 0.1


class FrontSite(web.BaseSite):
    """A port with a front door."""

    def __init__(
        self, runner: web.AppRunner, door: FrontDoor, *, host: str, port: int, is_shared: bool, backlog: int = 1_024
    ) -> None:
        """Listen nowhere yet.

        Args:
            runner: Of the web server behind the door.
            door: Meets whoever connects.
            host: Address to listen at.
            port: Port to listen at.
            is_shared: Whether other processes may listen at the same port; the kernel spreads connections over them.
            backlog: How many connections may wait to be accepted.
        """
        super().__init__(runner, backlog=backlog)
        self._door = door
        self._host = host
        self._port = port
        self._is_shared = is_shared

    @property
    @override
    def name(self) -> str:
        return str(URL.build(scheme="http", host=self._host, port=self._port))

    @override
    async def start(self) -> None:
        await super().start()
        server = cast("web.Server", self._runner.server)
        listeners = await _listen(self._host, self._port, backlog=self._backlog, is_shared=self._is_shared)
        self._server = cast("asyncio.Server", Reception(listeners, self._door.protocol(server)))
        self._door.open()

    @override
    async def stop(self) -> None:
        await super().stop()
        await self._door.close()


class Reception:
    """Accepts connections, as an ``asyncio.Server`` does, but all that wait and not one in each turn of the loop.

    libuv, and so uvloop, takes one per turn. Where turns are long because there is much to do, a crowd that connects
    waited for seconds, unseen, and admission could refuse none of it: 384 clients for three.
    """

    def __init__(self, listeners: Sequence[socket.socket], protocol: Callable[[], asyncio.Protocol]) -> None:
        """Begin at once.

        Args:
            listeners: Sockets that listen; they are closed with this.
            protocol: Makes the protocol of each connection.
        """
        self.sockets = tuple(listeners)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._welcomes: set[asyncio.Task[Any]] = set()
        for listener in self.sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Accept no more."""
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No file descriptor is free, as a rule: who waits goes on waiting.
                log.error("connection not accepted: %s", error)  # noqa: TRY400  # no trace needed
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_S, self._go_on, listener)
                return
            connection.setblocking(False)  # noqa: FBT003  # the name of it
            welcome = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
            self._welcomes.add(welcome)
            welcome.add_done_callback(self._welcomed)

    def _welcomed(self, welcome: "asyncio.Task[Any]") -> None:
        self._welcomes.discard(welcome)
        if not welcome.cancelled() and (error := welcome.exception()) is not None:
            log.warning("connection lost before it was met: %s", error)

    def _go_on(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)


async def _listen(host: str, port: int, *, backlog: int, is_shared: bool) -> list[socket.socket]:
    """Return sockets that listen at every address that a name has.

    Raises:
        OSError: One is taken, or is none of ours.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listeners.append(  # those before one that fails are closed
                socket.create_server(address, family=family, backlog=backlog, reuse_port=is_shared)
            )
            listeners[-1].setblocking(False)  # noqa: FBT003  # the name of it
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners
