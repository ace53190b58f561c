"""Freshness: from the moment an event is produced to the moment its effect is read over HTTP."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from demo.log import IMPRESSIONS, DemoEvent

_POLL_S = 0.002
_GIVE_UP_S = 60.0
_EVERY = 4


class FreshnessProbe:
    """Watches a sample of live impressions until they are counted in what the platform serves.

    The count of all impressions of a user only rises, so the event is visible when the served count has reached the
    number of the user's different impressions sent so far.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base_url = base_url
        self._headers = headers
        self._ids: dict[str, set[str]] = defaultdict(set)
        self._waiting: asyncio.Queue[tuple[str, int, float]] = asyncio.Queue(maxsize=10_000)
        self._sampled = 0
        self.ms: list[float] = []
        self.unseen = 0

    def count(self, event: DemoEvent) -> None:
        """Note an event of the load."""
        if event.topic == IMPRESSIONS:
            self._ids[event.key].add(event.event_id)

    def sent(self, event: DemoEvent, at: float) -> None:
        """Note a live event; every fourth impression is watched."""
        if event.topic != IMPRESSIONS:
            return
        user = event.key
        self._ids[user].add(event.event_id)
        self._sampled += 1
        if self._sampled % _EVERY == 0:
            self._waiting.put_nowait((user, len(self._ids[user]), at))

    async def run(self) -> None:
        """Watch until cancelled, a few events at once."""
        async with aiohttp.ClientSession(headers=self._headers) as session, asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(self._watch(session))

    async def drained(self) -> None:
        """Wait until every sampled event was watched to its end."""
        await self._waiting.join()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        while True:
            user, expected, sent_at = await self._waiting.get()
            while await self._served(session, user) < expected:
                if time.perf_counter() - sent_at > _GIVE_UP_S:
                    self.unseen += 1
                    break
                await asyncio.sleep(_POLL_S)
            self.ms.append((time.perf_counter() - sent_at) * 1000)
            self._waiting.task_done()

    async def _served(self, session: aiohttp.ClientSession, user: str) -> int:
        """Return the count that is served, or -1 where a read failed: it tells nothing, and the next one may not."""
        request = {"entities": {"user_id": [int(user)]}, "features": ["user_taste:impressions_all"]}
        try:
            async with session.post(f"{self._base_url}/get-online-features", json=request) as answer:
                if answer.status != HTTPStatus.OK:
                    return -1
                content = await answer.json()
        except aiohttp.ClientError:
            return -1
        count: int = content["results"][1]["values"][0]
        return count
