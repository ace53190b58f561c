"""Versions of definitions: which number a group's meaning has (SEMANTICS: Definitions and their versions).

The record holds, per group, the fingerprints that were applied, in order; the number is the place in that list. A
worker that meets an unknown fingerprint does not start, unless it may apply definitions itself.
"""

from collections.abc import Iterable

import msgspec

from core.errors import ConfigurationError
from core.plans import GroupPlan
from core.ports import RowKey, Store, StoredRow
from core.versions import version_bytes

_DEADLINE_MS = 5_000


async def resolve_versions(record: Store, plans: Iterable[GroupPlan], *, may_apply: bool) -> dict[str, int]:
    """Return the number of each group's version, unknown ones applied if that is allowed.

    Raises:
        ConfigurationError: A fingerprint is unknown and may not be applied here.
        StoreError: The record failed.
    """
    numbers = {}
    for plan in plans:
        known = await _fingerprints(record, plan.name)
        if plan.fingerprint not in known:
            if not may_apply:
                raise ConfigurationError(
                    f"group {plan.name!r} has a meaning that was never applied (fingerprint {plan.fingerprint.hex()}): "
                    f"run `freshet apply`, or set FRESHET_APPLY=true where workers may do it themselves"
                )
            known.append(plan.fingerprint)
            await _write(record, plan.name, known)
        numbers[plan.name] = known.index(plan.fingerprint) + 1
    return numbers


async def _fingerprints(record: Store, group: str) -> list[bytes]:
    values = await record.read([_place(group)], deadline_ms=_DEADLINE_MS)
    value = values.get(_place(group))
    return [] if value is None else msgspec.msgpack.decode(value[8:], type=list[bytes])


async def _write(record: Store, group: str, fingerprints: list[bytes]) -> None:
    ver = len(fingerprints)
    value = version_bytes(ver) + msgspec.msgpack.encode(fingerprints)
    if await record.write([StoredRow(_place(group), ver, value)], deadline_ms=_DEADLINE_MS) == 0:
        raise ConfigurationError(f"group {group!r} was applied by somebody else at the same time: start again")


def _place(group: str) -> RowKey:
    return RowKey("#registry", group)
