import asyncio
import time
from contextlib import asynccontextmanager

from aiohttp import web

from demo.freshness import FreshnessProbe
from demo.log import DemoEvent


@asynccontextmanager
async def serving(counts: dict[int, int]):
    """Serve how many impressions each user has; yields the base URL, the requests, and whether user 0 was asked for alone."""
    asked, alone = [], asyncio.Event()

    async def read(request):
        users = (await request.json())["entities"]["user_id"]
        asked.append(users)
        if users == [0]:
            alone.set()
        return web.json_response({"results": [{"values": users}, {"values": [counts.get(user, 0) for user in users]}]})

    app = web.Application()
    app.router.add_post("/get-online-features", read)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked, alone
    finally:
        await runner.cleanup()


def impression(user: int, number: int) -> DemoEvent:
    return DemoEvent("impressions", str(user), time_ms=0, fields={"event_id": f"{user}-{number}"})


async def test_an_event_that_is_seen_late_delays_the_measure_of_no_other():
    """
    Four events that came late once held up all that were watched after them: half of what was called freshness was
    the queue of the watchers.
    """
    counts = dict.fromkeys(range(1, 150), 4)
    async with serving(counts) as (base_url, asked, alone):
        probe = FreshnessProbe(base_url, {})
        watching = asyncio.create_task(probe.run())
        for user in range(150):
            for number in range(4):
                probe.sent(impression(user, number), time.perf_counter())

        async with asyncio.timeout(20):
            await alone.wait()
            assert len(probe.ms) == 149
            counts[0] = 4
            await probe.drained()
        watching.cancel()

    assert len(probe.ms) == 150
    assert max(map(len, asked)) == 100
    assert asked[-1] == [0]
