"""Recovery: how long after a kill a new event is readable, of each partition that the killed worker may have owned.

One event per partition is sent at the kill. The time until all of them are readable anywhere is the figure: the last
partition counts, not the first.
"""

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp
import orjson

from core.keys import encode_key, kafka_partition
from tests.chaos.domain import PARTITIONS
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import LedgerProducer
from tests.chaos.readers import ask
from tests.chaos.traffic import ITEMS, Sent

_POLL_S = 0.05
_DEADLINE_S = 1.0
_FIRST_USER, _FIRST_ITEM = 1_000_000, 1_000_000


def _users() -> list[int]:
    """Return a user of each partition."""
    found: dict[int, int] = {}
    user = _FIRST_USER
    while len(found) < PARTITIONS:
        found.setdefault(kafka_partition(encode_key([user]), PARTITIONS), user)
        user += 1
    return [found[partition] for partition in range(PARTITIONS)]


@dataclass
class Probe:
    """Sends events of its own and waits until they can be read."""

    fleet: Fleet
    producer: LedgerProducer
    users: list[int] = field(default_factory=_users)
    _number: int = 0

    async def wait_readable(self, since: float, *, limit_s: float) -> float:
        """Send an event per partition and return the seconds since an instant until all can be read, or the limit."""
        self._number += 1
        now_ms = time.time_ns() // 1_000_000
        # Few items, or the probes would be most of the keys; the numbers repeat when nobody remembers the former ones.
        item = _FIRST_ITEM + self._number % ITEMS
        for partition, user in enumerate(self.users):
            fields = {"event_id": f"p{self._number}-{partition}", "time_ms": now_ms, "user_id": user, "item_id": item}
            self.producer.send(Sent("probe", "taps", partition, now_ms, orjson.dumps(fields)))
        left = set(self.users)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_DEADLINE_S)) as session:
            while left and time.monotonic() - since < limit_s:
                self.producer.poll()
                for slot in self.fleet.alive:
                    left -= await self._readable(session, slot.base_url, sorted(left), item)
                await asyncio.sleep(_POLL_S)
        return time.monotonic() - since

    @staticmethod
    async def _readable(session: aiohttp.ClientSession, base_url: str, users: list[int], item: int) -> set[int]:
        if not users:
            return set()
        try:
            told = await ask(session, base_url, "user", users, ["user_activity:last_items_1d"])
        except (aiohttp.ClientError, TimeoutError):
            return set()
        answered = zip(users, told.values, strict=True) if told else ()
        return {user for user, (items,) in answered if items and item in items}
