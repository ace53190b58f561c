"""Entities: what features describe, and what keys an event by."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entity:
    """What features describe: a user, an article, a user in a tab.

    Attributes:
        name: Name of the entity and of its repartition topic, ``freshet.<name>``.
        keys: Names of the key columns, in the order in which they make up the key.
        partitions: Partitions of its repartition topic; state is keyed by it, so it cannot be changed later.
    """

    name: str
    keys: tuple[str, ...]
    partitions: int = field(default=8, kw_only=True)
