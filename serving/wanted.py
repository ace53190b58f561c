"""What is asked of the tiers, and what they could not tell."""

from dataclasses import dataclass, field

from core.definitions import ServingPolicy
from core.errors import StoreError
from core.ports import RowKey


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row that is asked for, with what its group says about copies.

    Attributes:
        written_through: Whether the group's rows are written to the cache at all.
        fingerprint: Of the definition that is served; a row of another one means something else.
    """

    key: RowKey
    policy: ServingPolicy
    written_through: bool
    fingerprint: bytes

    @property
    def is_copied(self) -> bool:
        """Whether this process may keep a copy."""
        return self.policy.tier != "direct"

    @property
    def is_cached(self) -> bool:
        """Whether the cache is asked for it."""
        return self.written_through and self.policy.tier != "direct"


@dataclass(slots=True)
class Gaps:
    """What a read could not have while the record failed.

    Attributes:
        unread: Rows that nobody has told: they may be anything.
        old: Rows that are served from copies older than their group's ``soft_ttl``.
        why: What the record's failure was.
    """

    unread: set[RowKey] = field(default_factory=set)
    old: set[RowKey] = field(default_factory=set)
    why: StoreError | None = None
