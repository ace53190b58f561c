"""A proxy before a server, which can do to its connections what networks do: slow, cut in mid-frame, swallow.

All proxies of a run live in one loop in a thread of their own, so that nothing else of the rig holds them up.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Self, TypeVar

T = TypeVar("T")
_CHUNK = 65_536
_POLL_S = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._opened: list[AbstractAsyncContextManager[Any]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something there and return what it returns; blocks."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def enter(self, opening: AbstractAsyncContextManager[T]) -> T:
        """Open something there, until the loop ends."""
        self._opened.append(opening)
        return self.run(opening.__aenter__())

    def stop(self) -> None:
        """End the loop and what is left in it."""

        async def end() -> None:
            for opened in reversed(self._opened):
                await opened.__aexit__(None, None, None)
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Transports close their sockets in the turn after.
            await asyncio.sleep(_POLL_S)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Proxy:
    """Passes connections on to a server.

    Attributes:
        port: Where it listens on 127.0.0.1.
        delay_s: How long each piece is held.
        is_blackhole: Whether bytes are held until this ends; connections stay open.
        cut_next: Whether the next piece is passed on by half, and all connections are reset.
    """

    def __init__(self, upstream: int, port: int = 0) -> None:
        self.upstream = upstream
        self.port = port
        self.delay_s = 0.0
        self.is_blackhole = False
        self.cut_next = False
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen until the end of the block; then reset everything."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._reset()

    def heal(self) -> None:
        """Pass everything on at once."""
        self.delay_s, self.is_blackhole, self.cut_next = 0.0, False, False

    def _reset(self) -> None:
        for writer in list(self._writers):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, up_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        except (OSError, ConnectionError):
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            while self.is_blackhole:  # noqa: ASYNC110  # set from another thread
                await asyncio.sleep(_POLL_S)
            if self.cut_next:
                self.cut_next = False
                writer.write(data[: len(data) // 2])
                await writer.drain()
                self._reset()
                return
            writer.write(data)
            await writer.drain()
        # One side is done; the other may still have something to say, but no protocol here works like that.
        raise ConnectionResetError
