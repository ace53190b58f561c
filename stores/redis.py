"""Redis: the fast copy of the record, a cache that may be lost at any time; here as one server.

``stores/redis_cluster.py`` is the same for a cluster; what is sent is in ``redis_commands``, connections in
``redis_node``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError
from typing_extensions import override

from core.errors import StoreError
from core.ports import Cache, Filling, RowKey, StoredRow
from stores.redis_commands import (
    pack_fill,
    pack_lease,
    pack_read,
    pack_renew,
    pack_write,
    raise_partial,
    read_chunks,
    write_chunks,
)
from stores.redis_node import RedisLimits, RedisNode, connection_factory, within

_SMALL_BYTES = 1_024
"""A command up to here shares a connection with others of the same moment: a read of a few entities."""


class RedisStore(Cache):
    """Rows in one Redis server, version 5 or later, through a bounded number of connections.

    The server decides by its own clock when a row has expired.
    """

    def __init__(self, url: str, *, ca: Path | None = None, limits: RedisLimits | None = None) -> None:
        """Prepare the connections; nothing connects before the first call.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; it may hold a password, which appears in no message.
            ca: Certificates (PEM) to trust beside those of the system.
            limits: Bounds of the connections; by default 16 of them, 200 ms to connect.

        Raises:
            ConfigurationError: The URL is none, or the file has no certificates.
        """
        self.name = "redis"
        limits = limits or RedisLimits()
        self._node = RedisNode(connection_factory(url, limits, ca), limits)

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        chunks, replies = list(read_chunks(keys)), list[Any]()
        commands = [pack_read(chunk) for chunk in chunks]
        await self._call(commands, replies, what=f"read of {len(keys)} keys", deadline_ms=deadline_ms)
        return _found(chunks, replies)

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        chunks, replies = list(write_chunks(rows)), list[Any]()
        try:
            await self._call(
                [pack_write(chunk) for chunk in chunks],
                replies,
                what=f"write of {len(rows)} rows",
                deadline_ms=deadline_ms,
            )
        except StoreError as error:
            if replies:
                raise_partial(error, chunks, replies)
            raise
        return sum(replies)

    @override
    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        chunks, replies = list(read_chunks(keys)), list[Any]()
        commands = [pack_lease(chunk, token, lease_ms) for chunk in chunks]
        await self._call(commands, replies, what=f"lease of {len(keys)} keys", deadline_ms=deadline_ms)
        return _found(chunks, replies)

    @override
    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        commands, replies = [pack_fill(chunk, token) for chunk in write_chunks(fillings)], list[Any]()
        await self._call(commands, replies, what=f"filling of {len(fillings)} rows", deadline_ms=deadline_ms)
        return sum(replies)

    @override
    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        commands, replies = [pack_renew(chunk) for chunk in write_chunks(fillings)], list[Any]()
        await self._call(commands, replies, what=f"renewal of {len(fillings)} rows", deadline_ms=deadline_ms)
        return sum(replies)

    @override
    async def close(self) -> None:
        await self._node.close()

    async def _call(self, commands: list[bytes], replies: list[Any], *, what: str, deadline_ms: int) -> None:
        """Put what came back into ``replies``, then raise the first refusal among it."""
        if not commands:
            return
        async with within(deadline_ms, where=self._node.where, what=what):
            if len(commands) == 1 and len(commands[0]) <= _SMALL_BYTES:
                replies.append(await self._node.share(commands[0]))
            else:
                replies += await self._node.exchange(commands)
            for reply in replies:
                if isinstance(reply, ResponseError):
                    raise reply


def _found(chunks: Sequence[Sequence[RowKey]], replies: Sequence[Sequence[bytes | None]]) -> dict[RowKey, bytes]:
    return {
        key: value
        for chunk, values in zip(chunks, replies, strict=True)
        for key, value in zip(chunk, values, strict=True)
        if value is not None
    }
