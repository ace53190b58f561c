"""Redis: the fast copy of the record, a cache that may be lost at any time.

A row's value is the packed row itself; its first 8 bytes are its version, big-endian. A write compares and sets on
the server, many rows a script, so that a late write never undoes a newer one.

There is exactly one attempt per call: redis-py would by itself hide ten behind our deadline (measured: 26.9 s with
Redis unreachable). Whoever wants another attempt has the budget to decide about it.

The tag ``{pk}`` in the key keeps an entity's rows in one slot of a Redis Cluster; a store for a cluster would group
rows by slot and be otherwise the same.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from typing_extensions import override

from core.errors import ConfigurationError, StoreError, StoreTimeoutError
from core.ports import RowKey, Store, StoredRow

# One script blocks the whole server: 128 rows of 500 bytes for about 0.3 ms, and large rows are fewer a script.
SCRIPT_ROWS_MAX = 128
SCRIPT_BYTES_MAX = 1 << 20
MGET_KEYS_MAX = 256

# Versions are compared as two halves, because Lua's numbers hold 53 bits, and not as strings, because Lua compares
# those by the server's locale. A value too short to have a version is not ours and is replaced. SET ends an older
# expiry by itself.
_COMPARE_AND_SET = b"""
local taken = 0
for i, key in ipairs(KEYS) do
  local value, expires_at_ms = ARGV[2 * i - 1], ARGV[2 * i]
  local held = redis.call('GETRANGE', key, 0, 7)
  local newer = #held < 8
  if not newer then
    local held_high, held_low = struct.unpack('>I4I4', held)
    local high, low = struct.unpack('>I4I4', value)
    newer = high > held_high or (high == held_high and low > held_low)
  end
  if newer then
    taken = taken + 1
    redis.call('SET', key, value)
    if expires_at_ms ~= '' then
      redis.call('PEXPIREAT', key, expires_at_ms)
    end
  end
end
return taken
"""


class RedisStore(Store):
    """Rows in one Redis server, version 5 or later, through a bounded pool of connections.

    The server decides by its own clock when a row has expired.
    """

    def __init__(
        self, url: str, *, connections_max: int = 16, connect_timeout_ms: int = 200, socket_timeout_ms: int = 1_000
    ) -> None:
        """Prepare the pool; nothing connects before the first call.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it. It may hold a password, which
                appears in no message.
            connections_max: Calls at work at the same time; further ones wait within their own deadlines.
            connect_timeout_ms: Longest wait for a new connection.
            socket_timeout_ms: Longest silence of the server, whatever the deadline of the call.

        Raises:
            ConfigurationError: The URL is none.
        """
        self.name = "redis"
        try:
            self._factory = ConnectionPool.from_url(
                url,
                # Nothing here needs what version 3 of the protocol adds, and version 2 is read faster.
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=connect_timeout_ms / 1000,
                socket_timeout=socket_timeout_ms / 1000,
            )
        except ValueError:
            # Not "from": the cause may quote a piece of the URL, and a password with a slash is such a piece.
            raise ConfigurationError("the Redis URL cannot be read; escape special characters in it") from None
        self._where = _where(self._factory.connection_kwargs)
        self._slots = asyncio.Semaphore(connections_max)
        # Not redis-py's pool: that one awaits while it takes a connection back, and a deadline that strikes there
        # loses the connection for good. Here taking and putting back cannot be interrupted.
        self._idle: list[AbstractConnection] = []

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        chunks = [keys[start : start + MGET_KEYS_MAX] for start in range(0, len(keys), MGET_KEYS_MAX)]
        replies = await self._call(
            [_pack([b"MGET", *map(_redis_key, chunk)]) for chunk in chunks],
            what=f"read of {len(keys)} keys",
            deadline_ms=deadline_ms,
        )
        found: dict[RowKey, bytes] = {}
        for chunk, values in zip(chunks, replies, strict=True):
            found.update((key, value) for key, value in zip(chunk, values, strict=True) if value is not None)
        return found

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        replies = await self._call(
            [_pack_write(chunk) for chunk in _chunks(rows)], what=f"write of {len(rows)} rows", deadline_ms=deadline_ms
        )
        return sum(replies)

    @override
    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect()

    async def _call(self, commands: list[bytes], *, what: str, deadline_ms: int) -> list[Any]:
        """Send the commands together and return their replies.

        Raises:
            StoreTimeoutError: Not all replies came in time.
            StoreError: Redis could not be reached, or refused at least one of the commands.
        """
        if not commands:
            return []
        try:
            async with asyncio.timeout(deadline_ms / 1000), self._slots:
                return await self._exchange(commands)
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreTimeoutError(f"{self._where}: {what}: no answer within {deadline_ms} ms: {error}") from error
        except (RedisError, OSError) as error:
            raise StoreError(f"{self._where}: {what}: {error}") from error

    async def _exchange(self, commands: list[bytes]) -> list[Any]:
        connection = self._idle.pop() if self._idle else self._new_connection()
        try:
            if connection.is_connected and await connection.can_read():
                # Idle, and yet there is something to read: the server has closed it.
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(commands)
            replies = [await _read_reply(connection) for _ in commands]
        except BaseException:
            # Replies may still be on their way, and the next caller must not take them for its own.
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    def _new_connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        return connection


async def _read_reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        # The replies behind it must be read all the same.
        return error


def _redis_key(key: RowKey) -> str:
    return f"{{{key.pk}}}{key.sk}"


def _pack_write(rows: Sequence[StoredRow]) -> bytes:
    """Return one EVAL: its text is under 1 % of a full call, and the server never has to know the script before."""
    command: list[bytes | str | int] = [b"EVAL", _COMPARE_AND_SET, len(rows)]
    command += [_redis_key(row.key) for row in rows]
    for row in rows:
        command += (row.value, b"" if row.expires_at_ms is None else row.expires_at_ms)
    return _pack(command)


def _pack(command: Sequence[bytes | str | int]) -> bytes:
    # Not redis-py's packing: it is written in Python and would cost more than everything else here together.
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # its stub asks for a tuple of one
    return packed


def _chunks(rows: Sequence[StoredRow]) -> Iterator[Sequence[StoredRow]]:
    start, size = 0, 0
    for index, row in enumerate(rows):
        if index > start and (index - start == SCRIPT_ROWS_MAX or size + len(row.value) > SCRIPT_BYTES_MAX):
            yield rows[start:index]
            start, size = index, 0
        size += len(row.value)
    if rows:
        yield rows[start:]


def _where(settings: dict[str, Any]) -> str:
    if "path" in settings:
        return f"redis {settings['path']}"
    return f"redis {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
