"""Consumer groups of the roles: one writer at a time, and offsets handed over (SEMANTICS: Topics).

A worker of role ``all`` beside split roles would be a second writer of the same rows. And whoever changes from one to
the other wants to read on where the other stopped. A committed offset says that everything before it is durable in
tables which do not depend on the role: so the higher one is right, whichever group it is of.
"""

from collections.abc import Mapping, Sequence

from app.kafka.admin import KafkaAdmin, Offsets
from app.settings import Role
from core.definitions import Registry
from core.errors import ConfigurationError
from core.topics import repartition_topic

SPLIT = (Role.DISPATCHER, Role.AGGREGATOR)


def group_of(role: Role) -> str:
    """Return the consumer group of a role's workers; it is the id of their Faust app too."""
    return f"freshet-{role.value}"


def require_alone(admin: KafkaAdmin, role: Role) -> None:
    """Refuse to read beside another group that writes the same rows.

    Raises:
        ConfigurationError: There is one; the message says where its members are.
        BrokerError: The broker does not say.
    """
    others = SPLIT if role is Role.ALL else (Role.ALL,)
    found = admin.members(map(group_of, others))
    if found:
        way = "all" if role is Role.ALL else "split"
        raise ConfigurationError(
            f"{_told(found)}, reading what a worker of role {role.value} reads: two writers would overtake each other; "
            f"stop them, run `freshet roles migrate {way}`, then start this one"
        )


def migrate(admin: KafkaAdmin, registry: Registry, *, to_split: bool) -> list[str]:
    """Hand committed offsets over, from ``all`` to split roles or back; one that is further already stays.

    Returns:
        What was done, a line per group and topic.

    Raises:
        ConfigurationError: A group has members.
        BrokerError: The broker refused.
    """
    found = admin.members([group_of(role) for role in (Role.ALL, *SPLIT)])
    if found:
        raise ConfigurationError(
            f"{_told(found)}: stop all workers first; one that was stopped is a member until its session times out"
        )
    topics = {
        Role.DISPATCHER: list(registry.sources),
        Role.AGGREGATOR: [repartition_topic(name) for name in registry.entities],
    }
    lines = []
    for role, read in topics.items():
        source, target = (Role.ALL, role) if to_split else (role, Role.ALL)
        offered, held = admin.offsets(group_of(source)), admin.offsets(group_of(target))
        moved = offsets_to_set(offered, held, read)
        admin.set_offsets(group_of(target), moved)
        lines += _lines(group_of(source), group_of(target), read, offered, moved)
    return lines


def offsets_to_set(offered: Offsets, held: Offsets, topics: Sequence[str]) -> Offsets:
    """Return those offsets of topics that are further than what is held.

    >>> offsets_to_set({("a", 0): 7, ("a", 1): 3, ("b", 0): 9}, {("a", 1): 5}, ["a"])
    {('a', 0): 7}
    """
    return {place: offset for place, offset in offered.items() if place[0] in topics and offset > held.get(place, -1)}


def _lines(source: str, target: str, topics: Sequence[str], offered: Offsets, moved: Offsets) -> list[str]:
    told = []
    for topic in topics:
        there, set_ = (sum(place[0] == topic for place in places) for places in (offered, moved))
        told.append(f"{topic}: {set_} of {there} committed partitions handed from {source} to {target}")
    return told


def _told(found: Mapping[str, Sequence[str]]) -> str:
    groups = [f"group {group} has {len(where)} members ({', '.join(where)})" for group, where in found.items()]
    return " and ".join(groups)
