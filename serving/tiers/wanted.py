"""What is asked of the tiers, and what they could not tell for sure."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from core.definitions import ServingPolicy
from core.errors import StoreError
from core.ports import RowKey
from core.windows import to_ms


@dataclass(frozen=True, slots=True)
class Terms:
    """What a group says about copies of its rows.

    Attributes:
        written_through: Whether the group's rows are written to the cache at all.
        fingerprint: Of the definition that is served; a row of another one means something else.
        soft_ms, hard_ms, negative_ms: The policy's times, milliseconds.
        none_ms: How long a process says by its own copy that there is no row. Where a change may not be heard of, a
            first event may not either: then at most ``soft_ms``.
        jitter, early_refresh: As the policy says.
        is_copied: Whether a process may keep a copy.
        is_held: Whether it may even if it does not hear of changes.
        is_cached: Whether the cache is asked.
    """

    policy: ServingPolicy
    written_through: bool
    fingerprint: bytes
    soft_ms: int = field(init=False)
    hard_ms: int = field(init=False)
    negative_ms: int = field(init=False)
    none_ms: int = field(init=False)
    jitter: float = field(init=False)
    early_refresh: float = field(init=False)
    is_copied: bool = field(init=False)
    is_held: bool = field(init=False)
    is_cached: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what each read needs."""
        soft_ms, negative_ms = to_ms(self.policy.soft_ttl), to_ms(self.policy.negative_ttl)
        is_held = self.policy.tier == "local"
        worked_out = {
            "soft_ms": soft_ms,
            "hard_ms": to_ms(self.policy.hard_ttl),
            "negative_ms": negative_ms,
            "none_ms": min(negative_ms, soft_ms) if is_held else negative_ms,
            "jitter": self.policy.jitter,
            "early_refresh": self.policy.early_refresh,
            "is_copied": self.policy.tier != "direct",
            "is_held": is_held,
            "is_cached": self.written_through and self.policy.tier != "direct",
        }
        for name, value in worked_out.items():
            object.__setattr__(self, name, value)


class Wanted(NamedTuple):
    """A row that is asked for, with what its group says about copies."""

    key: RowKey
    terms: Terms


@dataclass(slots=True)
class Gaps:
    """What a read could not have.

    Attributes:
        known_at: When the progress was read that the answer will tell, on the event loop's clock.
        unread: Rows that nobody has told while the record failed: they may be anything.
        old: Rows that are served from copies older than their group's ``soft_ttl``, because it failed.
        untold: Rows, and that there is none, of which their partition's progress may know more: from copies whose
            changes are not announced here, or perhaps not any more, and from loads that began before ``known_at``.
        why: What the record's failure was.
    """

    known_at: float = -math.inf
    unread: set[RowKey] = field(default_factory=set)
    old: set[RowKey] = field(default_factory=set)
    untold: set[RowKey] = field(default_factory=set)
    why: StoreError | None = None
