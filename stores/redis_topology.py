"""Which node of a Redis Cluster has which slot, as the cluster itself tells, and when to ask again.

Asked at the first call, after a redirection, and after a node failed, at most twice a second; of a node at a time, and
each time of another one, so that a seed that swallows packets costs one call and not all of them.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from stores.redis_commands import pack
from stores.redis_node import RedisLimits, RedisNode

log = logging.getLogger(__name__)

Place: TypeAlias = tuple[str, int]
"""Host and port of a node."""

SLOTS = 16_384
_AGAIN_S = 0.5


class Topology:
    """Nodes by slot."""

    def __init__(self, seeds: Sequence[ConnectionPool], limits: RedisLimits) -> None:
        self._template = seeds[0]
        self._limits = limits
        self._seeds = [_place(seed.connection_kwargs) for seed in seeds]
        self._nodes: dict[Place, RedisNode] = {}
        self._slots: list[Place | None] = [None] * SLOTS
        self._stale = True
        self._known = False
        self._asked_at = 0.0
        self._turn = 0
        self._loading = asyncio.Lock()

    @property
    def where(self) -> str:
        """The cluster by its seeds, for messages."""
        return "redis cluster " + ",".join(f"{host}:{port}" for host, port in self._seeds)

    def place_of(self, slot: int) -> Place | None:
        """Return where the node of a slot is, or None if the cluster serves it nowhere."""
        return self._slots[slot]

    def node(self, place: Place) -> RedisNode:
        """Return the node at a place, perhaps a new one."""
        node = self._nodes.get(place)
        if node is None:
            options = {**self._template.connection_kwargs, "host": place[0], "port": place[1]}
            factory = ConnectionPool(connection_class=self._template.connection_class, **options)
            node = self._nodes[place] = RedisNode(factory, self._limits)
        return node

    def moved(self, slot: int, place: Place) -> None:
        """Note what a redirection told; where one slot moves, others do too."""
        self._slots[slot] = place
        self._stale = True

    def doubt(self) -> None:
        """Note that a node failed: another may have taken its slots."""
        self._stale = True

    async def refresh(self) -> None:
        """Ask the cluster if what is known is in doubt.

        Raises:
            RedisError: Nothing is known yet, and no node answers.
            OSError: Likewise.
        """
        if self._is_good():
            return
        async with self._loading:
            if self._is_good():
                return
            self._asked_at = time.monotonic()
            try:
                await self._load()
            except (RedisError, OSError) as error:
                if not self._known:
                    raise
                log.warning("cluster's slots not read: %s", error)

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for node in self._nodes.values():
            await node.close()
        self._nodes.clear()

    def _is_good(self) -> bool:
        return self._known and (not self._stale or time.monotonic() - self._asked_at < _AGAIN_S)

    async def _load(self) -> None:
        places = list(dict.fromkeys((*self._nodes, *self._seeds)))
        failure: Exception | None = None
        for _ in places:
            place = places[self._turn % len(places)]
            # Before the question: a deadline that strikes during it must not ask the same node again next time.
            self._turn += 1
            try:
                (reply,) = await self.node(place).exchange([pack([b"CLUSTER", b"SLOTS"])])
                if isinstance(reply, ResponseError):
                    raise reply
            except (RedisError, OSError) as error:
                failure = error
                continue
            await self._take(reply, place)
            return
        if failure is not None:
            raise failure

    async def _take(self, reply: Sequence[Any], asked: Place) -> None:
        slots: list[Place | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            # A node that does not know its own name leaves it out: it is where we asked.
            place = (host.decode() if host else asked[0], int(port))
            slots[first : last + 1] = [place] * (last - first + 1)
        self._slots, self._stale, self._known = slots, False, True
        gone = set(self._nodes) - set(slots)
        for place in gone:
            await self._nodes.pop(place).close()


def _place(options: dict[str, Any]) -> Place:
    return options.get("host", "localhost"), options.get("port", 6379)
