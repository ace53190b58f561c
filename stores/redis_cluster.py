"""Redis Cluster: rows by slot, slots by node, redirections followed within the deadline.

redis-py has a cluster client, which does not keep our rules: beyond its connections it fails instead of waiting, and it
sleeps and tries again behind the deadline (decision 0023). So the routing is here, and everything else is what one
server has too. The tag in a key keeps an entity's rows in one slot, so one command serves all groups of an entity.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError
from typing_extensions import override

from core.errors import ConfigurationError, StoreError
from core.ports import RowKey, Store, StoredRow
from stores.redis_commands import pack, pack_read, pack_write, read_chunks, redis_key, write_chunks
from stores.redis_node import RedisLimits, RedisNode, connection_factory, within
from stores.redis_topology import Topology

SCHEMES = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
# A slot that moves sends a call on once; more than a few in a row is a cluster that disagrees with itself.
REDIRECTIONS_MAX = 5

_ASKING = pack([b"ASKING"])
_T = TypeVar("_T")


@dataclass(slots=True)
class _Command:
    """A packed command of one slot.

    Attributes:
        asking: A node to be asked once, although the slot is another's: the slot is just moving there.
        reply: What came back, when it has.
    """

    slot: int
    packed: bytes
    asking: RedisNode | None = None
    reply: Any = None


class RedisClusterStore(Store):
    """Rows in a Redis Cluster, version 5 or later; each node's connections are bounded.

    A call either reaches all nodes that it needs, or is an error: what a part of them took is taken.
    """

    def __init__(self, url: str, *, ca: Path | None = None, limits: RedisLimits | None = None) -> None:
        """Prepare; nothing connects before the first call.

        Args:
            url: ``redis+cluster://user:password@host:port,host:port``, or ``rediss+cluster://`` with TLS. Any node
                that answers tells of the others.
            ca: Certificates (PEM) to trust beside those of the system.
            limits: Bounds of the connections to each node.

        Raises:
            ConfigurationError: The URL is none, or the file has no certificates.
        """
        self.name = "redis"
        limits = limits or RedisLimits()
        self._topology = Topology([connection_factory(seed, limits, ca) for seed in _seed_urls(url)], limits)

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        chunks = [
            (slot, chunk)
            for slot, of_slot in _by_slot(keys, lambda key: key).items()
            for chunk in read_chunks(of_slot)
        ]  # fmt: skip
        replies = await self._call(
            [_Command(slot, pack_read(chunk)) for slot, chunk in chunks],
            what=f"read of {len(keys)} keys",
            deadline_ms=deadline_ms,
        )
        found: dict[RowKey, bytes] = {}
        for (_, chunk), values in zip(chunks, replies, strict=True):
            found.update((key, value) for key, value in zip(chunk, values, strict=True) if value is not None)
        return found

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        commands = [
            _Command(slot, pack_write(chunk))
            for slot, of_slot in _by_slot(rows, lambda row: row.key).items()
            for chunk in write_chunks(of_slot)
        ]
        return sum(await self._call(commands, what=f"write of {len(rows)} rows", deadline_ms=deadline_ms))

    @override
    async def close(self) -> None:
        await self._topology.close()

    async def _call(self, commands: list[_Command], *, what: str, deadline_ms: int) -> list[Any]:
        if not commands:
            return []
        async with within(deadline_ms, where=self._topology.where, what=what):
            await self._topology.refresh()
            left = commands
            for _ in range(1 + REDIRECTIONS_MAX):
                left = await self._send(left)
                if not left:
                    return [command.reply for command in commands]
        raise StoreError(f"{self._topology.where}: {what}: sent on more than {REDIRECTIONS_MAX} times")

    async def _send(self, commands: Iterable[_Command]) -> list[_Command]:
        """Send commands to their nodes, all nodes at once; return those that must be sent on elsewhere."""
        by_node: dict[RedisNode, list[_Command]] = {}
        for command in commands:
            by_node.setdefault(self._node_of(command), []).append(command)
        # All are awaited, whatever fails: what is left behind would use connections after the call is over.
        answers = await asyncio.gather(
            *(_exchange(node, sent) for node, sent in by_node.items()), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                self._topology.doubt()
                raise answer
        return [command for sent in by_node.values() for command in sent if not self._settle(command)]

    def _node_of(self, command: _Command) -> RedisNode:
        node = command.asking or self._topology.node_of(command.slot)
        if node is None:
            self._topology.doubt()
            raise StoreError(f"{self._topology.where}: no node serves slot {command.slot}")
        return node

    def _settle(self, command: _Command) -> bool:
        """Return whether a command has its answer; note where it must go otherwise."""
        reply = command.reply
        command.asking = None
        if isinstance(reply, MovedError):
            self._topology.moved(command.slot, (reply.host, reply.port))
            return False
        if isinstance(reply, AskError):
            command.asking = self._topology.node((reply.host, reply.port))
            return False
        if isinstance(reply, ClusterDownError):
            self._topology.doubt()
        if isinstance(reply, ResponseError):
            raise reply
        return True


async def _exchange(node: RedisNode, commands: Sequence[_Command]) -> None:
    packed = [
        part for command in commands for part in ((_ASKING, command.packed) if command.asking else (command.packed,))
    ]
    replies = iter(await node.exchange(packed))
    for command in commands:
        if command.asking:
            next(replies)
        command.reply = next(replies)


def _by_slot(items: Sequence[_T], key_of: Callable[[_T], RowKey]) -> dict[int, list[_T]]:
    slots: dict[int, list[_T]] = {}
    for item in items:
        slots.setdefault(key_slot(redis_key(key_of(item)).encode()), []).append(item)
    return slots


def _seed_urls(url: str) -> list[str]:
    """Return a URL of each seed.

    >>> _seed_urls("rediss+cluster://u:p@a:1,b:2")
    ['rediss://u:p@a:1', 'rediss://u:p@b:2']
    """
    for scheme, plain in SCHEMES.items():
        if url.startswith(scheme):
            user, at, hosts = url.removeprefix(scheme).rstrip("/").rpartition("@")
            if hosts and "/" not in hosts:
                return [f"{plain}{user}{at}{host}" for host in hosts.split(",")]
    raise ConfigurationError("the Redis URL is none of a cluster: redis+cluster://host:port,host:port, no database")
