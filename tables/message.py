"""A record of a log as it was read, by the names that librdkafka gives to its parts."""

from typing import Protocol


class Message(Protocol):
    """A record as librdkafka gives it; its own types leave open what never happens here."""

    def offset(self) -> int:
        """Return where it stands."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of its timestamp, and milliseconds."""
        ...

    def key(self) -> bytes | None:
        """Return its key."""
        ...

    def value(self) -> bytes | None:
        """Return its value, or None for a tombstone."""
        ...

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Return its headers, if it has any."""
        ...
