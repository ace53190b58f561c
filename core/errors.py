"""Errors: each class answers one question: retry, bury, or fix?

``StoreError`` is retried in place, ``EventError`` is buried in the dead-letter topic, ``DefinitionError``
and ``ConfigurationError`` stop the start, ``RequestError`` goes back to the client as a 4xx.
"""

from dataclasses import dataclass

from core.ports import RowKey


class FreshetError(Exception):
    """Root of every error that Freshet raises on purpose."""


class StoreError(FreshetError):
    """A store did not do what it was asked; the same call may succeed later."""


class StoreBusyError(StoreError):
    """Too many others wait for a store: asking again later helps, and asking more does not."""


class StoreTimeoutError(StoreError):
    """A store gave no answer within its deadline; whether it acted is unknown."""


class PartialWriteError(StoreError):
    """A store took a part of what it was given.

    Attributes:
        failed: Keys of the rows that were not surely taken. All others were, or were refused as not newer.
    """

    def __init__(self, message: str, failed: frozenset[RowKey]) -> None:
        super().__init__(message)
        self.failed = failed


class RowTooLargeError(FreshetError):
    """A row that has outgrown its place: no further attempt can succeed, and what made it cannot be undone."""

    def __init__(self, pk: str, sk: str, *, row_bytes: int, limit: str) -> None:
        super().__init__(
            f"the row {sk} of {pk} has {row_bytes} bytes, {limit}: give its group fewer windows or smaller states, and "
            f"its texts a max_length, then `freshet apply` and start again; see docs/how-to/recover.md"
        )


class BrokerError(FreshetError):
    """The broker refused or lost something; the worker must not go on as if it had not."""


class DiskError(FreshetError):
    """The disk under the tables has taken or given back less than it should; the worker must not go on with it."""


class FormatError(FreshetError):
    """Bytes that are not what their place promises: a corrupt row, an unknown format number."""


class NewerFormatError(FormatError):
    """Bytes of ours, of a format that this release does not know yet: upgrade before they are passed over."""


class ConfigurationError(FreshetError):
    """A setting that cannot work: the start stops and says which one and what to do."""


class DefinitionError(FreshetError):
    """A definition that cannot mean anything; the message says what and what to do."""


@dataclass(slots=True)
class EventError(FreshetError):
    """One event that cannot be used: it goes to the dead-letter topic, the partition goes on.

    Attributes:
        reason: A short constant for counting: ``malformed``, ``too_large``, ``future``, ``late``, ``overflow``,
            ``unreadable``.
        detail: What is wrong and where, for people; never longer than 500 characters.
        each: Every mistake for itself, where there may be several; ``mistakes`` has them in any case.
    """

    reason: str
    detail: str
    each: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Everything that is wrong, for a producer who can still mend it."""
        return self.each or (self.detail,)


@dataclass(slots=True)
class RequestError(FreshetError):
    """A client's mistake, told with the field that is wrong and the limit that it broke.

    Attributes:
        status: HTTP status, 4xx.
        detail: What is wrong, where, and what would be right.
        kind: The class name under which a Feast client knows the mistake, or None.
    """

    status: int
    detail: str
    kind: str | None = None

    def __str__(self) -> str:
        return self.detail
