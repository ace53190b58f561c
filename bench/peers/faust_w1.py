"""Stock Faust: ``hopping`` is its own idiom, ``tiles`` the best that can be done without touching its transport."""

import os
import sys
import uuid

import faust
import orjson
import uvloop
from meter import Meter, add, sum_of

METER = Meter()
JOB = METER.job
IS_TILES = sys.argv[2] == "tiles"
TUNED = (
    {"stream_buffer_maxsize": 1 << 19, "producer_linger": 0.05, "producer_max_batch_size": 262_144} if IS_TILES else {}
)
if IS_TILES:
    uvloop.install()

app = faust.App(
    f"bench-{uuid.uuid4().hex[:8]}",
    broker=f"kafka://{JOB['broker']}",
    store="memory://",
    web_enabled=False,
    topic_partitions=4,
    topic_replication_factor=1,
    table_standby_replicas=0,
    consumer_auto_offset_reset="earliest",
    datadir=JOB["directory"],
    **TUNED,
)


def finish(answers):
    METER.tell(answers)
    # A worker that leaves in order takes longer than the run.
    os._exit(0)


if IS_TILES:
    topic = app.topic(JOB["topic"], value_type=bytes, value_serializer="raw", key_type=bytes)
    table = app.Table("spent", default=dict, partitions=4)

    @app.agent(topic)
    async def spend(stream):
        async for value in stream:
            event = orjson.loads(value)
            tiles = table[event["user_id"]]
            add(tiles, event, str)
            table[event["user_id"]] = tiles
            if METER.tick():
                finish({user: sum_of(tiles, METER.window_ms, str) for user, tiles in table.items()})

else:

    class Purchase(faust.Record, serializer="json"):
        event_id: str
        time_ms: int
        user_id: int
        item_id: int
        price_cents: int
        country: str
        device: str

    topic = app.topic(JOB["topic"], value_type=Purchase)
    table = app.Table("spent", default=lambda: [0, 0], partitions=4).hopping(3600, 300, expires=6 * 3600)
    START_S = METER.window_ms / 1000
    users = set()

    def added(state, event):
        return [state[0] + 1, state[1] + event.price_cents]

    @app.agent(topic)
    async def spend(stream):
        async for event in stream:
            # The record's timestamp is the event's time, which is what a window goes by.
            table[event.user_id].apply(added, event)
            users.add(event.user_id)
            if METER.tick():
                window = START_S, START_S + 3600 - 0.1
                finish({user: table.table._get_key((user, window)) for user in users})


sys.argv = ["faust", "worker", "-l", "info", "--without-web"]
app.main()
