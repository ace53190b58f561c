"""The ground that a worker stands on: Kafka as it finds it at its start, refused if it cannot work.

Everything is looked at before anything is read: that a broker lets us in, that no other group writes the same rows,
that all topics are as they must be, and that none was made anew. The embedded broker serves no administration, begins
empty and belongs to one worker, so there is nothing to look at.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin, TopicState
from app.kafka.groups import require_alone
from app.kafka.probe import require_kafka
from app.kafka.topic_ids import epochs, remember_topic_ids
from app.kafka.topics import judge_topics, plan_topics
from app.settings import Settings
from core.definitions import Registry
from core.errors import BrokerError, ConfigurationError
from core.ports import Store
from core.problems import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a worker needs to know of its topics.

    Attributes:
        topic_ids: Id of each topic that the role needs; empty on the embedded broker.
        epochs: How often each entity's topics were made anew.
    """

    topic_ids: Mapping[str, str]
    epochs: Mapping[str, int]


NO_GROUND = Ground({}, {})


async def find_ground(settings: Settings, access: KafkaAccess, registry: Registry, record: Store) -> Ground:
    """Return the ground for a worker that reads from Kafka.

    Raises:
        ConfigurationError: It cannot work there; every problem is told, one to a line.
        BrokerError: The broker refused a question.
        StoreError: The record failed.
    """
    found = await asyncio.to_thread(_look, settings, access, registry)
    if found is None:
        return NO_GROUND
    topic_ids = {name: topic.topic_id for name, topic in found.items()}
    incarnations = await remember_topic_ids(record, topic_ids)
    return Ground(topic_ids, epochs(registry.entities, incarnations))


async def require_same_topics(access: KafkaAccess, ground: Ground, topics: Collection[str]) -> None:
    """Refuse topics that were made anew since the start.

    Raises:
        BrokerError: One was, or the broker does not say.
    """
    if not ground.topic_ids or not topics:
        return
    facts = await asyncio.to_thread(lambda: KafkaAdmin(access).topic_facts(topics))
    for topic, (topic_id, _, _) in facts.items():
        if topic_id != ground.topic_ids.get(topic):
            raise BrokerError(
                f"topic {topic} was made anew: its id is {topic_id} and was {ground.topic_ids.get(topic)}; "
                f"see docs/how-to/recover.md"
            )


def told(problems: Sequence[Problem]) -> str:
    """Return problems as lines of text."""
    return "\n".join(f"- {one.where} {one.reason}; {one.remedy}" for one in problems)


def _look(settings: Settings, access: KafkaAccess, registry: Registry) -> Mapping[str, TopicState] | None:
    require_kafka(access)
    admin = KafkaAdmin(access)
    if not admin.is_served:
        return None
    require_alone(admin, settings.role)
    plans = plan_topics(registry, settings.role)
    found = admin.topics([plan.name for plan in plans])
    refused, warned = judge_topics(plans, found, replication=settings.replication, brokers=admin.brokers())
    if refused:
        raise ConfigurationError(
            f"Kafka at {access} has {len(refused)} problems (`freshet topics check` tells them too):\n{told(refused)}"
        )
    if warned:
        log.warning("topics have few replicas, see `freshet topics check`", extra={"topics": len(warned)})
    return found
