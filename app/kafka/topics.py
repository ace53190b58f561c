"""Topics as they must be, and what is wrong with them as they are (SEMANTICS: Topics). Pure.

Sources belong to their producers: they are checked, and changed by nobody here. The rest is Freshet's own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.kafka.admin import NewTopicState, TopicState
from app.settings import Role
from core.definitions import Registry
from core.problems import Problem
from core.topics import DEAD_LETTERS, changelog_topic, repartition_topic

REPLICAS_MAX = 3
RETENTION_MS = 7 * 86_400_000
COMPACTION_LAG_MS = 3_600_000
_LETTERS_KEPT_MS = 30 * 86_400_000
_FOR_EVER = -1


class Kind(StrEnum):
    """What a topic is for."""

    SOURCE = "source"
    REPARTITION = "repartition topic"
    CHANGELOG = "changelog"
    DEAD_LETTERS = "dead letters"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it must be.

    Attributes:
        partitions: None where any number will do.
        config: Settings that it is made with.
    """

    name: str
    kind: Kind
    partitions: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def new(self, *, replicas: int, partitions: int = 1) -> NewTopicState:
        """Return the topic to make; ``partitions`` counts where any number will do."""
        config = {**self.config, "min.insync.replicas": str(least_insync(replicas))}
        return NewTopicState(self.name, self.partitions or partitions, replicas, config)


def plan_topics(registry: Registry, role: Role = Role.ALL) -> list[TopicPlan]:
    """Return the topics that a role needs."""
    plans: list[TopicPlan] = []
    kept = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS), "retention.bytes": str(_FOR_EVER)}
    if role.dispatches:
        plans += [TopicPlan(name, Kind.SOURCE, None, kept) for name in registry.sources]
        letters = {**kept, "retention.ms": str(_LETTERS_KEPT_MS)}
        plans.append(TopicPlan(DEAD_LETTERS, Kind.DEAD_LETTERS, None, letters))
    if role.dispatches or role.aggregates:
        plans += [
            TopicPlan(repartition_topic(one.name), Kind.REPARTITION, one.partitions, kept)
            for one in registry.entities.values()
        ]
    if role.aggregates:
        compacted = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACTION_LAG_MS)}
        plans += [
            TopicPlan(changelog_topic(one.name), Kind.CHANGELOG, one.partitions, compacted)
            for one in registry.entities.values()
        ]
    return plans


def least_insync(replicas: int) -> int:
    """Return how many replicas must have a write: all but one, so that one broker may be away.

    >>> [least_insync(replicas) for replicas in (1, 2, 3)]
    [1, 1, 2]
    """
    return max(1, replicas - 1)


def check_topics(plans: Iterable[TopicPlan], found: Mapping[str, TopicState], *, replicas: int) -> list[Problem]:
    """Return everything that is wrong, each with its place, reason and remedy.

    Args:
        plans: Topics as they must be.
        found: Topics as they are; a missing one is absent.
        replicas: How many each of Freshet's own topics must have at least.
    """
    return [problem for plan in plans for problem in _check(plan, found.get(plan.name), replicas)]


def _check(plan: TopicPlan, found: TopicState | None, replicas: int) -> list[Problem]:
    def problem(reason: str, remedy: str) -> Problem:
        return Problem(f"topic {plan.name} ({plan.kind.value})", reason, remedy=remedy)

    if found is None:
        remedy = "run `freshet topics create`"
        if plan.kind is Kind.SOURCE:
            remedy = "its producers make it; for developing, `freshet topics create --sources 4` does"
        return [problem("does not exist", remedy)]
    problems = []
    if plan.partitions is not None and found.partitions != plan.partitions:
        problems.append(
            problem(
                f"has {found.partitions} partitions instead of {plan.partitions}",
                f"let the entity say partitions={found.partitions} if it was never used, else delete the topic and run "
                f"`freshet topics create`; state is kept by partition, so the number cannot change under it",
            )
        )
    for reason, wanted in _wrong_settings(plan, found):
        problems.append(
            problem(reason, f"`kafka-configs.sh --alter --topic {plan.name} --add-config {wanted}` mends it")
        )
    if plan.kind is not Kind.SOURCE and found.replicas < replicas:
        problems.append(
            problem(
                f"has {found.replicas} replicas instead of {replicas}",
                f"add replicas with `kafka-reassign-partitions.sh`, or set FRESHET_REPLICATION={found.replicas} if a "
                f"lost broker may cost data",
            )
        )
    return problems


def _wrong_settings(plan: TopicPlan, found: TopicState) -> list[tuple[str, str]]:
    """Return (what is wrong, the setting that would be right)."""
    config = found.config
    policy = config.get("cleanup.policy", "")
    wanted_policy = plan.config["cleanup.policy"]
    wrong = []
    if policy != wanted_policy:
        loses = "retention deletes rows" if plan.kind is Kind.CHANGELOG else "compaction deletes events"
        wrong.append((f"has cleanup.policy={policy}: {loses}", f"cleanup.policy={wanted_policy}"))
    if plan.kind is Kind.SOURCE:
        return wrong
    if plan.kind is Kind.CHANGELOG:
        lag_ms = int(config.get("min.compaction.lag.ms", "0"))
        if lag_ms < COMPACTION_LAG_MS:
            wrong.append(
                (
                    f"has min.compaction.lag.ms={lag_ms}: late bytes of a dead owner may be all that compaction keeps",
                    f"min.compaction.lag.ms={COMPACTION_LAG_MS}",
                )
            )
    if plan.kind is Kind.REPARTITION:
        retention_ms, retention_bytes = (int(config.get(f"retention.{unit}", "-1")) for unit in ("ms", "bytes"))
        if retention_ms != _FOR_EVER and retention_ms < RETENTION_MS:
            wrong.append(
                (f"has retention.ms={retention_ms}, less than seven days: a worker that is down longer loses events",
                 f"retention.ms={RETENTION_MS}")
            )  # fmt: skip
        if retention_bytes != _FOR_EVER:
            wrong.append(
                (f"has retention.bytes={retention_bytes}: a burst deletes events unread", "retention.bytes=-1")
            )
    least, insync = least_insync(found.replicas), int(config.get("min.insync.replicas", "1"))
    if insync < least:
        wrong.append(
            (f"has min.insync.replicas={insync}: the loss of one broker loses acknowledged records",
             f"min.insync.replicas={least}")
        )  # fmt: skip
    elif insync > found.replicas:
        wrong.append(
            (f"has min.insync.replicas={insync} and {found.replicas} replicas: no write succeeds",
             f"min.insync.replicas={least}")
        )  # fmt: skip
    return wrong
