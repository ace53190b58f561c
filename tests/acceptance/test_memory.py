"""Keys that are past are gone everywhere; `python -m bench.memory` shows the same of a million, and the memory."""

import redis

from bench.memory import measure


async def test_past_keys_are_gone_from_every_place(redis_server, tmp_path):
    """
    Tables, changelog, record, cache and local copies would grow with everyone who was ever seen.
    """
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()

    figures = await measure(tmp_path, redis_server.url, keys=3_000, chunk=1_000, warm_up=0)

    assert figures.left == {"tables": 64, "changelog": 64, "record": 64, "cache": 0, "local copies": 0}
