"""The load: purchases at a rate, sent by a process of its own."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import Producer

from bench.w1 import PURCHASES, payload, purchases

_SLICE_S = 0.01
_ENCODED = 200_000


class Stretch(NamedTuple):
    """So many events per second for so many seconds."""

    rate: float
    seconds: float


@contextmanager
def sending(broker: str, stretches: Sequence[Stretch], *, run: int, core: int) -> Iterator[None]:
    """Send while the body runs, from its beginning on, and wait until all is acknowledged."""
    spawned = multiprocessing.get_context("spawn")
    is_ready = spawned.Event()
    sender = spawned.Process(target=_send, args=(broker, list(stretches), run, core, is_ready))
    sender.start()
    try:
        is_ready.wait(60)
        yield
        sender.join(60)
        if sender.exitcode != 0:
            raise TimeoutError(f"the sender ended with {sender.exitcode}")
    finally:
        sender.kill()


def events_of(stretches: Sequence[Stretch]) -> int:
    """Return how many events stretches are."""
    return sum(int(one.rate * one.seconds) for one in stretches)


def _send(broker: str, stretches: Sequence[Stretch], run: int, core: int, is_ready: Any) -> None:
    os.sched_setaffinity(0, {core})
    producer = Producer(
        {
            "bootstrap.servers": broker, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )  # fmt: skip
    number = events_of(stretches)
    now_ms = time.time_ns() // 1_000_000
    # The same purchases again and again, each time under another identity.
    some = purchases(min(number, _ENCODED), start_ms=now_ms, apart_ms=0)
    encoded = [(str(one["user_id"]), payload({**one, "event_id": "@@@@@@@@@@@@@@@@"})) for one in some]
    sent = 0
    is_ready.set()
    for stretch in stretches:
        began, first = time.monotonic(), sent
        while sent - first < int(stretch.rate * stretch.seconds):
            due = min(int((time.monotonic() - began) * stretch.rate), int(stretch.rate * stretch.seconds))
            for _ in range(first + due - sent):
                key, value = encoded[sent % len(encoded)]
                producer.produce(PURCHASES.topic, key=key, value=value.replace(b"@" * 16, b"%04x%012x" % (run, sent)))
                sent += 1
            producer.poll(0)
            time.sleep(_SLICE_S)
    producer.flush(60)
