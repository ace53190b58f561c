"""Health: what a worker knows about itself."""

from typing import Any, Protocol


class Health(Protocol):
    """What a worker knows about itself."""

    async def can_read(self) -> bool:
        """Whether the stores answer."""
        ...

    def ingest(self) -> dict[str, Any]:
        """Return ``ready`` and the figures of ingestion: partitions, lag, age of the last commit."""
        ...
