"""What is asked of the tiers."""

from dataclasses import dataclass

from core.definitions import ServingPolicy
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
