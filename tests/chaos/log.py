"""Reading whole topics, each record once, from where the last reading ended."""

import time
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

_ANSWER_S = 30.0
_AT_ONCE = 2_000
_WAIT_S = 0.1


class Logs:
    """Reads topics from outside of any consumer group."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "fetch.queue.backoff.ms": 2,
                "log_level": 0,
            }
        )
        self._topics = topics
        self._next: dict[tuple[str, int], int] = {}

    def read(self) -> Iterator[Message]:
        """Yield what has come since the last time, up to the present ends; of a partition in its order."""
        ends = self.ends()
        left = {place for place, end in ends.items() if self._next.get(place, 0) < end}
        if not left:
            return
        self._consumer.assign([TopicPartition(*place, self._next.get(place, 0)) for place in sorted(left)])
        heard_at = time.monotonic()
        while left:
            # It waits until it has so many, or for the whole time.
            messages = self._consumer.consume(_AT_ONCE, timeout=_WAIT_S)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > _ANSWER_S:
                raise TimeoutError(f"nothing more of {sorted(left)} within {_ANSWER_S:.0f} s")
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                place, offset = (message.topic(), message.partition()), message.offset()
                if place not in left:
                    continue
                self._next[place] = offset + 1
                yield message
                if offset + 1 >= ends[place]:
                    left.discard(place)
        self._consumer.unassign()

    def ends(self) -> dict[tuple[str, int], int]:
        """Return where partitions end now."""
        ends = {}
        for topic in self._topics:
            for partition in self._consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions:
                place = TopicPartition(topic, partition)
                ends[topic, partition] = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_S)[1]
        return ends

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
