"""Freshness: from the moment an event is produced to the moment its effect is read over HTTP."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from demo.log import IMPRESSIONS, DemoEvent

WATCHED = "user_taste:impressions_all"

_POLL_S = 0.005
_GIVE_UP_S = 60.0
_EVERY = 4
_KEYS_PER_READ = 100


@dataclass(frozen=True, slots=True)
class _Watched:
    """An event that is visible when its user's count has reached ``count``."""

    user: str
    count: int
    sent_at: float


class FreshnessProbe:
    """Watches a sample of live impressions until they are counted in what the platform serves.

    The count of all impressions of a user only rises, so the event is visible when the served count has reached the
    number of the user's different impressions sent so far. One request at a time asks for all that is watched: the
    worker that answers computes the features too, and many requests would delay what they measure.

    Attributes:
        ms: How long each event of the sample took.
        unseen: How many were not seen within a minute.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base_url = base_url
        self._headers = headers
        self._ids: dict[str, set[str]] = defaultdict(set)
        self._watched: list[_Watched] = []
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._sampled = 0
        self.ms: list[float] = []
        self.unseen = 0

    def count(self, event: DemoEvent) -> None:
        """Note an event of the load."""
        if event.topic == IMPRESSIONS:
            self._ids[event.key].add(event.event_id)

    def sent(self, event: DemoEvent, at: float) -> None:
        """Note a live event and when it was sent (``time.perf_counter``); every fourth impression is watched."""
        if event.topic != IMPRESSIONS:
            return
        self.count(event)
        self._sampled += 1
        if self._sampled % _EVERY == 0:
            self._watched.append(_Watched(event.key, len(self._ids[event.key]), at))
            self._drained.clear()
            self._more.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with aiohttp.ClientSession(headers=self._headers) as session:
            while True:
                await self._more.wait()
                asked = self._watched[:_KEYS_PER_READ]
                counts = await self._served(session, [one.user for one in asked])
                self._note(counts, time.perf_counter())
                await asyncio.sleep(_POLL_S)

    async def drained(self) -> None:
        """Wait until every sampled event was watched to its end."""
        await self._drained.wait()

    def _note(self, counts: Mapping[str, int], now: float) -> None:
        left = []
        for one in self._watched:
            seen = counts.get(one.user, -1) >= one.count
            if seen or now - one.sent_at > _GIVE_UP_S:
                self.ms.append((now - one.sent_at) * 1000)
                self.unseen += not seen
            else:
                left.append(one)
        self._watched = left
        if not left:
            self._more.clear()
            self._drained.set()

    async def _served(self, session: aiohttp.ClientSession, users: Sequence[str]) -> dict[str, int]:
        """Return the count that is served of each user; none where a read failed: the next one may not."""
        request = {"entities": {"user_id": list(map(int, users))}, "features": [WATCHED]}
        try:
            async with session.post(f"{self._base_url}/get-online-features", json=request) as answer:
                if answer.status != HTTPStatus.OK:
                    return {}
                content = await answer.json()
        except aiohttp.ClientError:
            return {}
        return dict(zip(users, content["results"][1]["values"], strict=True))
