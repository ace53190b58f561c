"""The producers' helper: every event has an identity and a time, and is sent until it is acknowledged."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from client import EventProducer, HttpTransport, KafkaTransport, SendError
from services.broker import EmbeddedBroker

DEADLINE_S = 15.0
CLICK = {"user_id": 1, "video_id": 2, "tab": 0}


@pytest.fixture
def worker():
    """A worker's push route, with the statuses that it answers next and the requests that it got."""
    statuses, requests = list[int](), list[tuple[dict[str, str], Any]]()

    class Route(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((dict(self.headers), json.loads(body)))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Route)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", statuses, requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_events_over_http_get_an_identity_and_a_time_and_are_sent_together(worker):
    """
    A team that hands over what it knows sends events that count once and at the right time.
    """
    url, _, requests = worker
    with EventProducer(HttpTransport(url, key="freshet_x"), now_ms=lambda: 5) as producer:
        producer.send("clicks", CLICK)
        producer.send("clicks", {**CLICK, "event_id": "mine", "time_ms": 4})

    ((headers, body),) = requests
    assert headers["Authorization"] == "Bearer freshet_x"
    assert body["push_source_name"] == "clicks"
    assert body["df"]["time_ms"] == [5, 4]
    assert body["df"]["event_id"][1] == "mine"
    assert len(body["df"]["event_id"][0]) == 36


def test_a_batch_that_was_not_acknowledged_is_sent_again_as_it_was(worker):
    """
    After a 503 nobody knows what was stored: the same events with the same identities cannot count twice.
    """
    url, statuses, requests = worker
    statuses += [503, 503]
    with EventProducer(HttpTransport(url, pause_s=0)) as producer:
        producer.send("clicks", CLICK)

    bodies = [body for _, body in requests]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]


def test_a_mistake_is_told_and_the_events_are_kept(worker):
    """
    A 4xx is not tried again; what was handed over is not lost either.
    """
    url, statuses, requests = worker
    producer = EventProducer(HttpTransport(url, pause_s=0))
    producer.send("clicks", CLICK)
    statuses += [401]
    with pytest.raises(SendError, match="401"):
        producer.flush()
    producer.flush()

    assert len(requests) == 2
    assert requests[0][1] == requests[1][1]


def test_events_to_kafka_are_acknowledged_before_flush_returns():
    """
    Whoever has Kafka gets the same events without a worker between.
    """
    broker = EmbeddedBroker({"clicks": 1})
    try:
        with EventProducer(KafkaTransport(broker.bootstrap), now_ms=lambda: 5) as producer:
            producer.send("clicks", CLICK)
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test"})
        consumer.assign([TopicPartition("clicks", 0, 0)])
        event = json.loads(consumer.poll(DEADLINE_S).value())
        consumer.close()
    finally:
        broker.close()

    assert {**event, "event_id": "?"} == {**CLICK, "event_id": "?", "time_ms": 5}
