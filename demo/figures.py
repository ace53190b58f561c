"""The worker's own figures, scraped from its ``/metrics`` and ``/ready/ingest``."""

import json
import urllib.request
from dataclasses import dataclass, field
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 5.0
_BURIED = ("malformed", "too_large", "future", "overflow")


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the events so far.

    Attributes:
        dispatched: Good events, per source offset.
        late: Late events, per source offset.
        dead_letters: Other events that could not be used, per source offset.
        applied: Updates applied, per (source, entity).
        duplicates: Updates that repeat an event of another offset, per (source, entity).
        rows_flushed: Rows written so far.
        committed: Events dispatched for good, if that is all that is known; None if a worker told the rest.
    """

    dispatched: int = 0
    late: int = 0
    dead_letters: int = 0
    applied: dict[tuple[str, str], int] = field(default_factory=dict)
    duplicates: dict[tuple[str, str], int] = field(default_factory=dict)
    rows_flushed: int = 0
    committed: int | None = None

    @property
    def events_applied(self) -> int:
        """Events applied in every entity that they touch, per source offset."""
        return _furthest_behind(self.applied)

    @property
    def events_duplicate(self) -> int:
        """Events that repeat another in every entity that they touch, per source offset."""
        return _furthest_behind(self.duplicates)

    @property
    def accounted(self) -> int:
        """Events that the platform is done with, whatever became of them."""
        if self.committed is not None:
            return self.committed
        places = set(self.applied) | set(self.duplicates)
        done = {place: self.applied.get(place, 0) + self.duplicates.get(place, 0) for place in places}
        return _furthest_behind(done) + self.late + self.dead_letters

    @property
    def in_one_set(self) -> int:
        """Events that are in exactly one set: applied, duplicate, late or buried."""
        if self.committed is not None:
            return self.committed
        return self.events_applied + self.events_duplicate + self.late + self.dead_letters

    def has_each_once(self, sent: int) -> bool:
        """Whether each event that was sent is in exactly one set; beside others', of which none is there twice.

        >>> Figures(dispatched=3, applied={("clicks", "user"): 3}).has_each_once(2)
        True
        >>> Figures(dispatched=2, applied={("clicks", "user"): 3}).has_each_once(2)
        False
        """
        came = self.dispatched + self.late + self.dead_letters if self.committed is None else self.committed
        return sent <= self.in_one_set <= max(sent, came)


@dataclass(frozen=True, slots=True)
class Ingest:
    """How ingestion stands.

    Attributes:
        lag: Records written and not yet durable.
        rows: Rows in the tables.
    """

    ready: bool
    lag: int
    rows: int


def read_figures(base_url: str) -> Figures:
    """Return the figures of a worker.

    Raises:
        OSError: It does not answer.
    """
    with urllib.request.urlopen(f"{base_url}/metrics", timeout=_TIMEOUT_S) as answer:  # noqa: S310  # our own loopback URL
        text = answer.read().decode()
    events: dict[str, int] = {}
    updates: dict[str, dict[tuple[str, str], int]] = {}
    rows = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "freshet_events_total":
                outcome = sample.labels["outcome"]
                events[outcome] = events.get(outcome, 0) + int(sample.value)
            elif sample.name == "freshet_updates_total":
                place = sample.labels["source"], sample.labels["entity"]
                updates.setdefault(sample.labels["outcome"], {})[place] = int(sample.value)
            elif sample.name == "freshet_rows_flushed_total":
                rows = int(sample.value)
    return Figures(
        dispatched=events.get("dispatched", 0),
        late=events.get("late", 0),
        dead_letters=sum(events.get(reason, 0) for reason in _BURIED),
        applied=updates.get("applied", {}),
        duplicates=updates.get("duplicate", {}),
        rows_flushed=rows,
    )


def read_ingest(base_url: str) -> Ingest:
    """Return how a worker's ingestion stands.

    Raises:
        OSError: It does not answer.
    """
    try:
        with urllib.request.urlopen(f"{base_url}/ready/ingest", timeout=_TIMEOUT_S) as answer:  # noqa: S310  # see above
            facts = json.load(answer)
    except HTTPError as error:
        facts = json.load(error)
    return Ingest(facts["ready"], facts["lag"], facts["rows"])


def read_worker(base_url: str) -> tuple[Figures, Ingest]:
    """Return how a platform stands that is one worker.

    Raises:
        OSError: It does not answer.
    """
    return read_figures(base_url), read_ingest(base_url)


def _furthest_behind(counts: dict[tuple[str, str], int]) -> int:
    """Return the sum over sources of the count in the entity that is furthest behind."""
    least: dict[str, int] = {}
    for (source, _), count in counts.items():
        least[source] = min(count, least.get(source, count))
    return sum(least.values())
