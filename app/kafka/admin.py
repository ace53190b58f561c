"""Kafka's administration: topics, groups and committed offsets, as plain values.

librdkafka's client and not aiokafka's, because only it tells topic ids and can set the offsets of a group. It blocks:
call it in a thread. The embedded broker serves nothing of it (``is_served``).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, not declared as exports
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from app.kafka.access import KafkaAccess
from core.errors import BrokerError

_REQUEST_S = 10.0
_RETRY_S = 15.0
_PAUSE_S = 0.2
# A group's coordinator moves, or is being made with the first group of a cluster.
_PASSING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)

T = TypeVar("T")
Offsets = dict[tuple[str, int], int]
"""Committed offset by topic and partition."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is.

    Attributes:
        topic_id: Its incarnation: another one after it was deleted and made again.
        replicas: Of the partition that has the fewest.
        config: All its settings.
    """

    topic_id: str
    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NewTopicState:
    """A topic that is to be made."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]


class KafkaAdmin:
    """Asks and tells the cluster. Every method raises ``BrokerError`` if it refuses or gives no answer."""

    def __init__(self, access: KafkaAccess) -> None:
        self._access = access
        self._client = AdminClient({**access.for_librdkafka(), "log_level": 0})

    @property
    def is_served(self) -> bool:
        """Whether the broker serves administration: Kafka does, the embedded broker does not."""
        try:
            self._once(lambda: self._client.describe_consumer_groups(["freshet"], request_timeout=_REQUEST_S))
        except KafkaException as error:
            return bool(error.args[0].code() != KafkaError._UNSUPPORTED_FEATURE)  # noqa: SLF001  # its public name
        return True

    def brokers(self) -> int:
        """Return how many brokers there are."""
        try:
            return len(self._client.list_topics(timeout=_REQUEST_S).brokers)
        except KafkaException as error:
            raise self._error(error) from error

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Return those topics that exist."""
        found = self.topic_facts(names)
        if not found:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        configs = self._ask(lambda: self._client.describe_configs(resources, request_timeout=_REQUEST_S))
        settings = {
            resource.name: {name: entry.value for name, entry in entries.items() if entry.value is not None}
            for resource, entries in configs.items()
        }
        return {
            name: TopicState(topic_id, partitions, replicas, settings[name])
            for name, (topic_id, partitions, replicas) in found.items()
        }

    def topic_facts(self, names: Iterable[str]) -> dict[str, tuple[str, int, int]]:
        """Return id, partitions and replicas of those topics that exist."""
        asked = TopicCollection(list(names))
        described = self._ask(
            lambda: self._client.describe_topics(asked, request_timeout=_REQUEST_S),
            absent=KafkaError.UNKNOWN_TOPIC_OR_PART,
        )
        return {
            name: (
                str(topic.topic_id),
                len(topic.partitions),
                min((len(partition.replicas) for partition in topic.partitions), default=0),
            )
            for name, topic in described.items()
        }

    def create(self, topics: Iterable[NewTopicState]) -> None:
        """Make topics and wait until they can be seen; one that exists by now is left as it is."""
        wanted = [
            NewTopic(one.name, num_partitions=one.partitions, replication_factor=one.replicas, config=dict(one.config))
            for one in topics
        ]
        if wanted:
            self._ask(
                lambda: self._client.create_topics(wanted, request_timeout=_REQUEST_S),
                absent=KafkaError.TOPIC_ALREADY_EXISTS,
            )
            self._await_topics({one.topic for one in wanted})

    def _await_topics(self, names: set[str]) -> None:
        """Wait until a broker knows of topics that the controller has made: it hears of them a moment later."""
        deadline = time.monotonic() + _RETRY_S
        while missing := names - self.topic_facts(names).keys():
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"Kafka at {self._access} made topics and does not know of them after {_RETRY_S:.0f} s: "
                    f"{', '.join(sorted(missing))}"
                )
            time.sleep(_PAUSE_S)

    def members(self, groups: Iterable[str]) -> dict[str, list[str]]:
        """Return, per group that has members, where each of them is."""
        names = list(groups)
        described = self._ask(
            lambda: self._client.describe_consumer_groups(names, request_timeout=_REQUEST_S),
            absent=KafkaError.GROUP_ID_NOT_FOUND,
        )
        places = {
            name: [f"{one.group_instance_id or one.client_id} at {one.host.lstrip('/')}" for one in group.members]
            for name, group in described.items()
        }
        return {name: where for name, where in places.items() if where}

    def offsets(self, group: str) -> Offsets:
        """Return what a group has committed."""
        asked = [ConsumerGroupTopicPartitions(group)]
        answer = self._ask(lambda: self._client.list_consumer_group_offsets(asked, request_timeout=_REQUEST_S))
        return {
            (one.topic, one.partition): one.offset for one in answer[group].topic_partitions or () if one.offset >= 0
        }

    def set_offsets(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit offsets for a group that has no members."""
        if not offsets:
            return
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        told = [ConsumerGroupTopicPartitions(group, places)]
        answer = self._ask(lambda: self._client.alter_consumer_group_offsets(told, request_timeout=_REQUEST_S))
        for place in answer[group].topic_partitions or ():
            if place.error is not None:
                raise BrokerError(f"Kafka at {self._access}: {group}, {place.topic}[{place.partition}]: {place.error}")

    def _ask(self, ask: Callable[[], Mapping[Any, "Future[T]"]], *, absent: int | None = None) -> dict[Any, T]:
        """Return answers, asked again while the group's coordinator moves; without those that fail with ``absent``."""
        deadline = time.monotonic() + _RETRY_S
        while True:
            try:
                return self._once(ask, absent=absent)
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise self._error(error) from error
                time.sleep(_PAUSE_S)

    @staticmethod
    def _once(ask: Callable[[], Mapping[Any, "Future[T]"]], *, absent: int | None = None) -> dict[Any, T]:
        answers = {}
        for key, future in ask().items():
            try:
                answers[key] = future.result()
            except KafkaException as error:
                if error.args[0].code() != absent:
                    raise
        return answers

    def _error(self, error: KafkaException) -> BrokerError:
        reason: KafkaError = error.args[0]
        remedy = ""
        if reason.code() in _DENIED:
            user = self._access.sasl.user if self._access.sasl else "our certificate's name"
            remedy = f": grant it to {user!r} (docs/how-to/kafka.md lists what is asked for)"
        return BrokerError(f"Kafka at {self._access}: {reason.str()}{remedy}")
