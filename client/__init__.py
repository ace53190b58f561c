"""For those who send events and those who read features.

    from client import EventProducer, FeatureClient, HttpTransport

    with EventProducer(HttpTransport("http://127.0.0.1:6566", key="freshet_…")) as producer:
        producer.send("clicks", {"user_id": 24720, "video_id": 1, "tab": 0})

    with FeatureClient("http://127.0.0.1:6566", deadline_ms=50) as client:
        rows = client.read("home_feed", user_id=[24720]).rows()

It needs nothing of Freshet, but httpx for reading and confluent-kafka for Kafka: copy it, or take it from the package.
"""

from client.features import AsyncFeatureClient, FeatureClient, Features, ReadError
from client.producer import EventProducer, SendError, Transport
from client.transports import HttpTransport, KafkaTransport

__all__ = [
    "AsyncFeatureClient",
    "EventProducer",
    "FeatureClient",
    "Features",
    "HttpTransport",
    "KafkaTransport",
    "ReadError",
    "SendError",
    "Transport",
]
