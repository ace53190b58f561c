"""Which topics a role needs, and what is wrong with them at a start."""

import pytest

from app.kafka.admin import TopicState
from app.kafka.topics import judge_topics, plan_topics
from app.settings import Role
from core.topics import DEAD_LETTERS
from features import REGISTRY

PLANS = plan_topics(REGISTRY)


def made(*, replicas) -> dict[str, TopicState]:
    """All topics as `freshet topics create` made them."""
    new = [plan.new(replicas=replicas, partitions=4) for plan in PLANS]
    return {one.name: TopicState(f"id of {one.name}", one.partitions, one.replicas, one.config) for one in new}


def test_brokers_that_were_added_stop_nobody():
    """
    A cluster grows from one broker to three, and no worker could be restarted until all topics were moved.
    """
    refused, warned = judge_topics(PLANS, made(replicas=1), replication=None, brokers=3)

    assert refused == []
    assert {problem.reason for problem in warned} == {"has 1 replicas instead of 3"}
    assert judge_topics(PLANS, made(replicas=3), replication=None, brokers=3) == ([], [])


def test_replicas_that_were_asked_for_are_insisted_on():
    """
    Whoever sets FRESHET_REPLICATION has data that one lost disk must not cost.
    """
    refused, warned = judge_topics(PLANS, made(replicas=2), replication=3, brokers=3)

    assert {problem.reason for problem in refused} == {"has 2 replicas instead of 3"}
    assert warned == []


@pytest.mark.parametrize(
    ("role", "needs"),
    [(Role.ALL, True), (Role.DISPATCHER, True), (Role.AGGREGATOR, True), (Role.SERVING, False), (Role.ONDEMAND, False)],
)
def test_every_role_that_buries_needs_the_dead_letters(role, needs):
    """
    An aggregator that cannot bury a stranger's record ends at it, at each start again.
    """
    assert (DEAD_LETTERS in {plan.name for plan in plan_topics(REGISTRY, role)}) is needs
