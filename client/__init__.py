"""A producer's helper: events with identity and time, to Kafka or over HTTP.

    from client import EventProducer, HttpTransport

    with EventProducer(HttpTransport("http://127.0.0.1:6566", key="freshet_…")) as producer:
        producer.send("clicks", {"user_id": 24720, "video_id": 1, "tab": 0})

It needs nothing of Freshet: copy it, or take it from the package.
"""

from client.producer import EventProducer, SendError, Transport
from client.transports import HttpTransport, KafkaTransport

__all__ = ["EventProducer", "HttpTransport", "KafkaTransport", "SendError", "Transport"]
