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
from redis.exceptions import AskError, ClusterDownError, MovedError
from typing_extensions import override

from core.errors import ConfigurationError, StoreError
from core.ports import Cache, Filling, RowKey, StoredRow
from stores.redis_commands import (
    pack,
    pack_fill,
    pack_lease,
    pack_read,
    pack_renew,
    pack_write,
    raise_partial,
    read_chunks,
    redis_key,
    write_chunks,
)
from stores.redis_node import RedisLimits, RedisNode, connection_factory, within
from stores.redis_topology import Place, Topology

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
        reply: What came back, when it has; why nothing did otherwise.
    """

    slot: int
    packed: bytes
    asking: Place | None = None
    reply: Any = None


class RedisClusterStore(Cache):
    """Rows in a Redis Cluster, version 5 or later; each node's connections are bounded.

    A call either reaches all nodes that it needs, or is an error; it goes to all that can be reached in any case.
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
        return await self._find(keys, pack_read, what="read", deadline_ms=deadline_ms)

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        chunks = [
            (slot, chunk)
            for slot, of_slot in _by_slot(rows, lambda row: row.key).items()
            for chunk in write_chunks(of_slot)
        ]  # fmt: skip
        commands = [_Command(slot, pack_write(chunk)) for slot, chunk in chunks]
        try:
            await self._call(commands, what=f"write of {len(rows)} rows", deadline_ms=deadline_ms)
        except StoreError as error:
            raise_partial(error, [chunk for _, chunk in chunks], [command.reply for command in commands])
            raise
        return sum(command.reply for command in commands)

    @override
    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        return await self._find(
            keys, lambda chunk: pack_lease(chunk, token, lease_ms), what="lease", deadline_ms=deadline_ms
        )

    @override
    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        return await self._put(fillings, lambda chunk: pack_fill(chunk, token), what="filling", deadline_ms=deadline_ms)

    @override
    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        return await self._put(fillings, pack_renew, what="renewal", deadline_ms=deadline_ms)

    async def _put(
        self, fillings: Sequence[Filling], pack: Callable[[Sequence[Filling]], bytes], *, what: str, deadline_ms: int
    ) -> int:
        commands = [
            _Command(slot, pack(chunk))
            for slot, of_slot in _by_slot(fillings, lambda one: one.key).items()
            for chunk in write_chunks(of_slot)
        ]
        await self._call(commands, what=f"{what} of {len(fillings)} rows", deadline_ms=deadline_ms)
        return sum(command.reply for command in commands)

    async def _find(
        self, keys: Sequence[RowKey], pack: Callable[[Sequence[RowKey]], bytes], *, what: str, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        chunks = [
            (slot, chunk)
            for slot, of_slot in _by_slot(keys, lambda key: key).items()
            for chunk in read_chunks(of_slot)
        ]  # fmt: skip
        commands = [_Command(slot, pack(chunk)) for slot, chunk in chunks]
        await self._call(commands, what=f"{what} of {len(keys)} keys", deadline_ms=deadline_ms)
        found: dict[RowKey, bytes] = {}
        for (_, chunk), command in zip(chunks, commands, strict=True):
            found.update((key, value) for key, value in zip(chunk, command.reply, strict=True) if value is not None)
        return found

    @override
    async def close(self) -> None:
        await self._topology.close()

    async def _call(self, commands: list[_Command], *, what: str, deadline_ms: int) -> None:
        """Settle commands, all that can be, then raise the first failure among them."""
        if not commands:
            return
        async with within(deadline_ms, where=self._topology.where, what=what):
            await self._topology.refresh()
            left = commands
            for _ in range(1 + REDIRECTIONS_MAX):
                left = await self._send(left)
                if not left:
                    break
            else:
                raise StoreError(f"{self._topology.where}: {what}: sent on more than {REDIRECTIONS_MAX} times")
            for command in commands:
                if isinstance(command.reply, Exception):
                    raise command.reply

    async def _send(self, commands: Iterable[_Command]) -> list[_Command]:
        """Send commands to their nodes, all nodes at once; return those that must be sent on elsewhere."""
        by_place: dict[Place, list[_Command]] = {}
        for command in commands:
            place = command.asking or self._topology.place_of(command.slot)
            if place is None:
                self._topology.doubt()
                command.reply = StoreError(f"{self._topology.where}: no node serves slot {command.slot}")
            else:
                by_place.setdefault(place, []).append(command)
        # All are awaited, whatever fails: what is left behind would use connections after the call is over.
        answers = await asyncio.gather(
            *(_exchange(self._topology.node(place), sent) for place, sent in by_place.items()), return_exceptions=True
        )
        left = []
        for (place, sent), answer in zip(by_place.items(), answers, strict=True):
            if isinstance(answer, Exception):
                self._topology.doubt()
                for command in sent:
                    command.reply = answer
            elif answer is not None:
                raise answer
            else:
                left += [command for command in sent if not self._settle(command, place)]
        return left

    def _settle(self, command: _Command, asked: Place) -> bool:
        """Return whether a command has its answer; note where it must go otherwise."""
        reply = command.reply
        command.asking = None
        if isinstance(reply, MovedError):
            self._topology.moved(command.slot, _target(reply, asked))
            return False
        if isinstance(reply, AskError):
            command.asking = _target(reply, asked)
            return False
        if isinstance(reply, ClusterDownError):
            self._topology.doubt()
        return True


def _target(redirection: AskError, asked: Place) -> Place:
    # A cluster that does not know under which name it is reached leaves the host out: it is the one that we asked.
    return redirection.host or asked[0], redirection.port


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
