"""One Redis server: how it is reached, and a bounded number of connections to it.

There is exactly one attempt per call: redis-py would by itself hide ten behind our deadline (measured: 26.9 s with
Redis unreachable). Whoever wants another attempt has the budget to decide about it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.errors import ConfigurationError, StoreError, StoreTimeoutError

_STEPS, _LOOKS = 5, 3
"""Of a deadline, and turns of the loop after it: a reply is read in one, who waits for it goes on in the next."""
SHARED_MAX = 64
"""So many small commands go together at the most: each waits for the replies to all."""


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """Bounds of the connections to one server.

    Attributes:
        connections_max: Calls at work at the same time; further ones wait within their own deadlines.
        connect_timeout_ms: Longest wait for a new connection, its TLS handshake included.
    """

    connections_max: int = 16
    connect_timeout_ms: int = 200


def connection_factory(url: str, limits: RedisLimits, ca: Path | None) -> ConnectionPool:
    """Return what makes connections to a URL; nothing connects yet.

    Args:
        url: ``redis://``, ``rediss://`` (TLS, the host's name verified) or ``unix://``, as redis-py reads it. It may
            hold a password, which appears in no message.
        limits: Bounds of the connections.
        ca: Certificates (PEM) that are trusted beside those of the system, for ``rediss://``.

    Raises:
        ConfigurationError: The URL is none, or the file has no certificates.
    """
    options: dict[str, Any] = {}
    if url.startswith("rediss:"):
        options = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if ca is not None:
            _refuse_no_certificates(ca)
            options["ssl_ca_certs"] = str(ca)
    try:
        return ConnectionPool.from_url(
            url,
            # Nothing here needs what version 3 of the protocol adds, and version 2 is read faster.
            protocol=2,
            # Names of libraries would be two more commands that an ACL must allow.
            driver_info=None,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=limits.connect_timeout_ms / 1000,
            # Every call has its deadline; redis-py would make a task to hold one more for each of its steps.
            socket_timeout=None,
            **options,
        )
    except ValueError:
        # Not "from": the cause may quote a piece of the URL, and a password with a slash is such a piece.
        raise ConfigurationError("the Redis URL cannot be read; escape special characters in it") from None


@dataclass(slots=True)
class _Batch:
    """Commands of several callers that go together.

    Attributes:
        asked: Commands, and what their replies will be in; cancelled where its caller waits no more.
        task: Sends them.
    """

    asked: "list[tuple[bytes, asyncio.Future[Any]]]" = field(default_factory=list)
    task: "asyncio.Task[list[Any]]" = field(init=False)

    def add(self, command: bytes) -> "asyncio.Future[Any]":
        """Add a command; return what its reply will be in."""
        reply = asyncio.get_running_loop().create_future()
        self.asked.append((command, reply))
        return reply

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits yet."""
        return not all(reply.done() for _, reply in self.asked)

    def depart(self) -> list[bytes]:
        """Return the commands of those who wait yet: a lease, say, that nobody would use keeps others waiting."""
        self.asked = [one for one in self.asked if not one[1].done()]
        return [command for command, _ in self.asked]

    def settle(self, sent: "asyncio.Task[list[Any]]") -> None:
        """Tell the callers their replies, or why there are none, whatever it is."""
        if sent.cancelled():
            return
        error = sent.exception()
        replies = sent.result() if error is None else [error] * len(self.asked)
        for (_, waiting), reply in zip(self.asked, replies, strict=True):
            if waiting.done():
                continue
            if error is None:
                waiting.set_result(reply)
            else:
                waiting.set_exception(error)


class RedisNode:
    """A server and the connections to it."""

    def __init__(self, factory: ConnectionPool, limits: RedisLimits) -> None:
        self.where = _where(factory.connection_kwargs)
        self._factory = factory
        self._slots = asyncio.Semaphore(limits.connections_max)
        # Not redis-py's pool: that one awaits while it takes a connection back, and a deadline that strikes there
        # loses the connection for good. Here taking and putting back cannot be interrupted.
        self._idle: list[AbstractConnection] = []
        self._closed = False
        self._next: _Batch | None = None
        self._sending: set[asyncio.Task[list[Any]]] = set()

    async def share(self, command: bytes) -> Any:
        """Send a small command together with others that wait to be sent; return its reply.

        A refused one's reply is its ``ResponseError``. To wake the other side and to be woken costs more than a small
        command does.

        Raises:
            RedisError: No connection, or it broke.
            OSError: Likewise.
        """
        batch = self._next
        if batch is None or len(batch.asked) >= SHARED_MAX:
            batch = self._next = _Batch()
            batch.task = asyncio.create_task(self._send_together(batch))
            self._sending.add(batch.task)
            batch.task.add_done_callback(self._sending.discard)
            batch.task.add_done_callback(batch.settle)
        try:
            return await batch.add(command)
        except asyncio.CancelledError:
            if not batch.is_wanted:
                self._close_to_others(batch)
                batch.task.cancel()
            raise

    async def _send_together(self, batch: _Batch) -> list[Any]:
        async with self._slots:
            self._close_to_others(batch)
            return await self._exchange(batch.depart())

    def _close_to_others(self, batch: _Batch) -> None:
        if self._next is batch:
            self._next = None

    async def exchange(self, commands: list[bytes]) -> list[Any]:
        """Send packed commands together and return their replies; a refused one's is its ``ResponseError``.

        Raises:
            RedisError: No connection, or it broke.
            OSError: Likewise.
        """
        async with self._slots:
            return await self._exchange(commands)

    async def close(self) -> None:
        """Close idle connections now, and those at work when their calls are over."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()

    async def _exchange(self, commands: list[bytes]) -> list[Any]:
        connection = self._idle.pop() if self._idle else self._new_connection()
        try:
            if connection.is_connected and await connection.can_read():
                # Idle, and yet there is something to read: the server has closed it.
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
            await _send(connection, commands)
            replies = [await _read_reply(connection) for _ in commands]
        except BaseException:
            # Replies may still be on their way, and the next caller must not take them for its own.
            await connection.disconnect(nowait=True)
            raise
        if self._closed:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)
        return replies

    def _new_connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        return connection


@asynccontextmanager
async def within(deadline_ms: int, *, where: str, what: str) -> AsyncIterator[None]:
    """Hold a deadline, and tell redis-py's errors in our words.

    Raises:
        StoreTimeoutError: The deadline is over.
        StoreError: Redis could not be reached, or refused something.
    """
    try:
        async with asyncio.timeout(None) as timeout:
            deadline = _Deadline(timeout, deadline_ms / 1000)
            try:
                yield
            finally:
                deadline.cancel()
    except (TimeoutError, RedisTimeoutError) as error:
        raise StoreTimeoutError(f"{where}: {what}: no answer within {deadline_ms} ms: {error}") from error
    except (RedisError, OSError) as error:
        raise StoreError(f"{where}: {what}: {error}") from error


class _Deadline:
    """Ends a call whose time is over: time in which we could have seen its answer.

    Timers come before what has arrived. A loop whose turns are long, or that had no processor, would take answers that
    are there for such that are late, and everybody would go to the record in the moment in which there is most to do.
    So time is counted in steps, of which each counts once however late we are, and we look once more in the end.
    """

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._step_s = seconds / _STEPS
        self._step_at = self._loop.time()
        self._steps, self._looks = (_STEPS, _LOOKS) if seconds > 0 else (0, 0)
        self._next: asyncio.Handle | None = None
        self._step()

    def cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _step(self) -> None:
        if self._steps:
            self._steps -= 1
            # A timer that is a little late makes not all the others late, too.
            self._step_at = max(self._step_at + self._step_s, self._loop.time() + self._step_s / 2)
            self._next = self._loop.call_at(self._step_at, self._step)
        elif self._looks:
            self._looks -= 1
            self._next = self._loop.call_soon(self._step)
        else:
            self._timeout.reschedule(self._loop.time())


async def _send(connection: AbstractConnection, commands: list[bytes]) -> None:
    try:
        await connection.send_packed_command(commands)
    except RuntimeError as error:
        # What uvloop says of a connection that the other side has reset; asyncio's own loop raises an OSError.
        raise ConnectionResetError(str(error)) from error


async def _read_reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        # The replies behind it must be read all the same.
        return error


def _refuse_no_certificates(ca: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        raise ConfigurationError(f"{ca} has no certificates for Redis to be trusted by: {error}") from error


def _where(settings: dict[str, Any]) -> str:
    if "path" in settings:
        return f"redis {settings['path']}"
    return f"redis {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
