"""What the whole suite takes for granted of its real services, in containers and as plain processes alike."""

import json
import time
import urllib.error
import urllib.request
import uuid

import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

DEADLINE_S = 30.0


def test_kafka_carries_a_record_from_a_producer_to_a_group(kafka):
    """
    Where the broker tells clients an address that they cannot reach, or makes no group, no other test tells why.
    """
    topic = f"real-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])[topic].result(DEADLINE_S)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    # Not far ahead of the clock: Kafka refuses that, as the embedded broker does not.
    at_ms = time.time_ns() // 1_000_000 - 86_400_000
    producer.produce(topic, value=b"{}", timestamp=at_ms)
    assert producer.flush(DEADLINE_S) == 0
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])

    record = consumer.poll(DEADLINE_S)
    consumer.close()

    assert (record.value(), record.timestamp()[1]) == (b"{}", at_ms)


def test_kafka_makes_no_topic_by_itself(kafka):
    """
    A misspelt topic that springs up would take a producer's events where nobody reads them.
    """
    topic = f"real-{uuid.uuid4()}"
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "message.timeout.ms": 3_000, "log_level": 2})
    producer.produce(topic, value=b"{}")
    producer.flush(DEADLINE_S)

    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=DEADLINE_S).topics

    assert topic not in topics


def test_dynamodb_refuses_what_dynamodb_refuses(dynamodb_url):
    """
    A stand-in that takes every name would let a table through that Amazon refuses in production.
    """
    request = urllib.request.Request(  # noqa: S310 - loopback
        dynamodb_url,
        data=json.dumps({"TableName": "no"}).encode(),
        headers={
            "X-Amz-Target": "DynamoDB_20120810.DescribeTable",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": "AWS4-HMAC-SHA256 Credential=tests/20250101/local/dynamodb/aws4_request, "
            "SignedHeaders=host, Signature=none",
        },
    )

    try:
        answer = urllib.request.urlopen(request, timeout=DEADLINE_S)  # noqa: S310 - loopback
    except urllib.error.HTTPError as error:
        answer = error

    with answer:
        assert answer.status == 400
        assert "ValidationException" in answer.read().decode()


def test_redis_keeps_what_it_is_given(redis_server):
    """
    The cache of every worker under test.
    """
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("real", b"row", px=60_000)

        assert client.get("real") == b"row"
