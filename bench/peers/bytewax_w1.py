"""Bytewax, recovery in SQLite, an epoch each 10 s: ``sliding`` is its own idiom, ``tiles`` hand-written in a map."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from meter import TILES, Meter, add, sum_of

METER = Meter()
JOB = METER.job
IS_SLIDING = sys.argv[2] == "sliding"
answers = {}


class Keep(StatelessSinkPartition):
    def write_batch(self, items):
        answers.update(items)


class Sink(DynamicSink):
    def build(self, _step_id, _worker_index, _worker_count):
        return Keep()


def parse(message):
    return message.key.decode(), orjson.loads(message.value)


def event_time(event):
    return datetime.fromtimestamp(event["time_ms"] / 1000, tz=UTC)


def fold(state, event):
    state[0] += 1
    state[1] += event["price_cents"]
    METER.tick()
    return state


def spend(tiles, event):
    if tiles is None:
        tiles = {}
    add(tiles, event)
    METER.tick()
    return tiles, tiles


flow = Dataflow("bench")
source = op.input("in", flow, KafkaSource([JOB["broker"]], [JOB["topic"]], tail=False))
events = op.map("parse", source, parse)
if IS_SLIDING:
    # Each event is folded into twelve windows.
    METER.left *= TILES
    clock = windowing.EventClock(ts_getter=event_time, wait_for_system_duration=timedelta(seconds=10))
    windower = windowing.SlidingWindower(
        length=timedelta(hours=1),
        offset=timedelta(minutes=5),
        align_to=datetime.fromtimestamp(JOB["window_ms"] / 1000, tz=UTC),
    )
    windows = windowing.fold_window(
        "windows", events, clock, windower, lambda: [0, 0], fold, lambda one, two: [one[0] + two[0], one[1] + two[1]]
    )
    down = op.map("down", windows.down, lambda item: ((item[0], item[1][0]), item[1][1]))
else:
    down = op.stateful_map("tiles", events, spend)
op.output("out", down, Sink())
recovery = Path(JOB["directory"]) / "recovery"
recovery.mkdir()
init_db_dir(recovery, 1)
cli_main(flow, workers_per_process=1, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(recovery))
if IS_SLIDING:
    METER.tell({user: state for (user, window), state in answers.items() if window == 0})
else:
    METER.tell({user: sum_of(tiles, METER.window_ms) for user, tiles in answers.items()})
