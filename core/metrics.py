"""Metrics: every name in one place, Prometheus style, unit last.

Counters say what became of events: ``dispatched`` and ``buried`` per source offset, ``applied``, ``duplicate`` and
``replayed`` per (source offset, entity key). Feast's names are used where a Feast dashboard expects them.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_MS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter("freshet_events_total", "What became of source records", "source", "outcome")
        self._updates = self._counter(
            "freshet_updates_total",
            "What became of updates per (source offset, entity key)",
            "entity",
            "source",
            "outcome",
        )
        self._flushed = self._counter("freshet_rows_flushed_total", "Rows flushed to changelog and stores")
        self._removed = self._counter("freshet_rows_removed_total", "Rows that were past and removed everywhere")
        self._flush_seconds = self._histogram(
            "freshet_flush_seconds", "Time from taking dirty rows to their acknowledgement"
        )
        self._store_seconds = self._histogram("freshet_store_seconds", "Time of a store call", "store", "operation")
        self._store_errors = self._counter("freshet_store_errors_total", "Failed store calls", "store", "operation")
        self._hedges = self._counter("freshet_store_hedges_total", "Reads that were begun a second time", "store")
        self._tier_keys = self._counter("freshet_tier_keys_total", "Keys asked of a tier", "tier", "outcome")
        self._on_demand = self._counter(
            "freshet_on_demand_rows_total", "Rows of on-demand features", "feature", "outcome"
        )
        self._on_demand_seconds = self._histogram(
            "freshet_on_demand_seconds", "Time of one computation of an on-demand feature", "feature"
        )
        self._freshness = self._histogram(
            "freshet_freshness_seconds", "Time from sending a canary until a read knows of it", "group"
        )
        self._canaries_lost = self._counter("freshet_canaries_lost_total", "Canaries that no read knew of", "group")
        self._breaker = self._gauge("freshet_breaker_open", "Whether a store is not asked because it failed", "store")
        self._read_seconds = self._histogram("feast_feature_server_request_latency_seconds", "Time of a read request")
        self._requests = self._counter("freshet_requests_total", "Requests by status", "status")
        self._pushed = self._counter(
            "freshet_pushed_events_total", "What became of events that came over HTTP", "source", "outcome"
        )
        self._refused = self._counter("freshet_requests_refused_total", "Requests without the key they need", "status")
        self._lag = self._gauge("freshet_lag_records", "Records written and not yet durable here", "topic")
        self._commit_age = self._gauge("freshet_commit_age_seconds", "Age of the last commit")
        self._owed = self._gauge("freshet_cache_owed_rows", "Rows that the cache has not taken yet")
        self._rows = self._gauge("freshet_table_rows", "Rows in the tables of this worker")
        self._ids = self._gauge("freshet_dedupe_ids", "Event ids remembered")
        self._restored = self._gauge("freshet_restore_records", "Records read by the restore under way or the last one")
        self._restore_rate = self._gauge("freshet_restore_records_per_second", "Rate of that restore")
        self._restore_left = self._gauge("freshet_restore_left_seconds", "Time that the restore will take yet")

    def dispatched(self, source: str, events: int) -> None:
        """Count good events of a source."""
        self._events.labels(source, "dispatched").inc(events)

    def buried(self, source: str, reason: str) -> None:
        """Count one event that went to the dead-letter topic."""
        self._events.labels(source, reason).inc()

    def updates(self, entity: str, source: str, *, applied: int, duplicates: int, conflicts: int, replays: int) -> None:
        """Count what became of the updates of an entity by a source; conflicts are duplicates too."""
        outcomes = {"applied": applied, "duplicate": duplicates, "conflict": conflicts, "replayed": replays}
        for outcome, number in outcomes.items():
            if number:
                self._updates.labels(entity, source, outcome).inc(number)

    def flushed(self, rows: int, seconds: float) -> None:
        """Observe one flush."""
        self._flushed.inc(rows)
        self._flush_seconds.observe(seconds)

    def removed(self, rows: int) -> None:
        """Count rows that were past and are gone."""
        self._removed.inc(rows)

    def store_call(self, store: str, operation: str, seconds: float, *, failed: bool) -> None:
        """Observe one call of a store."""
        self._store_seconds.labels(store, operation).observe(seconds)
        if failed:
            self._store_errors.labels(store, operation).inc()

    def hedged(self, store: str) -> None:
        """Count a read that was begun a second time."""
        self._hedges.labels(store).inc()

    def tier(
        self, name: str, *, hits: int, misses: int, failed: int = 0, old: int = 0, unread: int = 0, early: int = 0
    ) -> None:
        """Count keys asked of a tier; one that fails is a counted miss, then old copies are served, or nothing is.

        Of the hits, some are read again early.
        """
        outcomes = (
            ("hit", hits), ("miss", misses), ("failed", failed), ("old", old), ("unread", unread), ("early", early),
        )  # fmt: skip
        for outcome, number in outcomes:
            if number:
                self._tier_keys.labels(name, outcome).inc(number)

    def breaker(self, store: str, *, is_open: bool) -> None:
        """Set whether a store is kept from being asked."""
        self._breaker.labels(store).set(is_open)

    def on_demand(self, feature: str, *, rows: int, invalid: int, seconds: float) -> None:
        """Count the rows that an on-demand feature was computed for, and observe how long it took."""
        for outcome, number in (("computed", rows - invalid), ("invalid", invalid)):
            if number:
                self._on_demand.labels(feature, outcome).inc(number)
        self._on_demand_seconds.labels(feature).observe(seconds)

    def freshness(self, group: str, seconds: float) -> None:
        """Observe how long a canary took until it could be read."""
        self._freshness.labels(group).observe(seconds)

    def expect_canaries(self, groups: Iterable[str]) -> None:
        """Begin to count the canaries of groups."""
        for group in groups:
            self._freshness.labels(group)
            self._canaries_lost.labels(group)

    def canary_lost(self, group: str) -> None:
        """Count a canary that could not be read in time."""
        self._canaries_lost.labels(group).inc()

    def request(self, status: int, seconds: float) -> None:
        """Observe one read request."""
        self._requests.labels(str(status)).inc()
        self._read_seconds.observe(seconds)

    def pushed(self, source: str, outcome: str, events: int) -> None:
        """Count events that came over HTTP: ``accepted``, ``refused`` or ``unacknowledged``."""
        self._pushed.labels(source, outcome).inc(events)

    def refused(self, status: int) -> None:
        """Count one request that was refused for its key."""
        self._refused.labels(str(status)).inc()

    def accounting(self) -> dict[str, int]:
        """Return what became of events (``source/outcome``) and of updates (``source/entity/outcome``) so far."""
        return {
            "/".join(sample.labels[name] for name in ("source", "entity", "outcome") if name in sample.labels): int(
                sample.value
            )
            for counter in (self._events, self._updates)
            for family in counter.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def lag(self, by_topic: dict[str, int]) -> None:
        """Set the lag per topic."""
        for topic, records in by_topic.items():
            self._lag.labels(topic).set(records)

    def state(self, *, commit_age_s: float, owed: int, rows: int, ids: int) -> None:
        """Set the gauges of a worker's state."""
        self._commit_age.set(commit_age_s)
        self._owed.set(owed)
        self._rows.set(rows)
        self._ids.set(ids)

    def restore(self, *, records: int, records_per_s: float, left_s: float) -> None:
        """Set how far the restore is."""
        self._restored.set(records)
        self._restore_rate.set(records_per_s)
        self._restore_left.set(left_s)

    def text(self) -> bytes:
        """Return the exposition that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=_MS_BUCKETS)
