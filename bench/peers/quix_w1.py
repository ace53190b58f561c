"""Quix Streams, state in RocksDB with a changelog: ``hopping`` is its own idiom, ``tiles`` hand-written in a state."""

import sys
import uuid

from meter import Meter, add, sum_of
from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Count, Sum

METER = Meter()
JOB = METER.job
answers = {}


def processed(_topic, _partition, _offset):
    if METER.tick():
        app.stop()


app = Application(
    broker_address=JOB["broker"],
    consumer_group=f"bench-{uuid.uuid4().hex[:8]}",
    auto_offset_reset="earliest",
    state_dir=JOB["directory"],
    loglevel="WARNING",
    on_message_processed=processed,
)
frame = app.dataframe(app.topic(JOB["topic"], value_deserializer="json", key_deserializer="str"))
if sys.argv[2] == "hopping":

    def keep(value, key, _timestamp, _headers):
        if value["start"] == METER.window_ms:
            answers[key] = value["purchases"], value["cents"]

    windows = frame.hopping_window(3_600_000, 300_000, grace_ms=10_000)
    windows.agg(purchases=Count(), cents=Sum("price_cents")).current().update(keep, metadata=True)
else:

    def spend(event, state):
        tiles = state.get("tiles") or {}
        add(tiles, event, str)
        state.set("tiles", tiles)
        answers[event["user_id"]] = tiles
        return event

    frame.apply(spend, stateful=True)
app.run()
if sys.argv[2] == "tiles":
    answers = {user: sum_of(tiles, METER.window_ms, str) for user, tiles in answers.items()}
METER.tell(answers)
