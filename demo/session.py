"""A run of the demo against running workers: load, live part, check; figures as they come and at the end."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Any

from core.catalogue import catalogue
from core.definitions import Registry
from core.errors import BrokerError, FreshetError
from demo.batch import batch_features
from demo.check import NO_HEADERS, check_served
from demo.figures import Figures, Ingest
from demo.freshness import WATCHED, FreshnessProbe
from demo.log import DemoEvent, happening, load_log
from demo.oracle import ENTITIES, Oracle
from demo.replay import LIVE_EVENTS_PER_S, Replay

LIVE_SHARE = 0.05

_POLL_S = 0.1
_WATCH_S = 0.5
# A record that is slow is committed in few large steps.
_STALL_S_MAX = 120.0


class DemoError(FreshetError):
    """The demo could not be run to its end."""


@dataclass(slots=True)
class Report:
    """The figures of a finished run, as ``freshet demo --exit --json`` prints them.

    Attributes:
        applied: None if no worker told it, as for ``duplicates`` and ``late``; then those late are dead letters too.
        not_compared: Features that the definitions have and the oracle does not know, or the other way round.
    """

    events: int = 0
    applied: int | None = 0
    duplicates: int | None = 0
    late: int | None = 0
    dead_letters: int = 0
    values_checked: int = 0
    values_wrong: int = 0
    events_per_s: int = 0
    freshness_ms_p50: float | None = None
    freshness_ms_p99: float | None = None
    read_ms_p50: float | None = None
    read_ms_p99: float | None = None
    not_compared: list[str] = field(default_factory=list)
    first_wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return what is printed; what is wrong or not compared only if there is any, and nothing that is not known."""
        facts = asdict(self)
        for name in ("applied", "duplicates", "late"):
            if facts[name] is None:
                del facts[name]
        for name in ("not_compared", "first_wrong"):
            if not facts[name]:
                del facts[name]
        return facts


@dataclass(slots=True)
class Progress:
    """How a run stands, for a screen that is drawn beside it.

    Attributes:
        phase: ``loading``, ``live``, ``checking`` or ``done``.
        events_per_s: While loading: accounted events per second so far.
    """

    phase: str = "starting"
    total: int = 0
    sent: int = 0
    figures: Figures = field(default_factory=Figures)
    ingest: Ingest = field(default_factory=lambda: Ingest(ready=False, lag=0, rows=0))
    events_per_s: float = 0.0
    freshness_ms: list[float] = field(default_factory=list)
    report: Report | None = None


class Session:
    """One run of the demo."""

    def __init__(
        self,
        places: Sequence[str],
        kafka: Mapping[str, Any],
        *,
        registry: Registry,
        read: Callable[[], tuple[Figures, Ingest]],
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Prepare a run; nothing is sent yet.

        Args:
            places: Base URLs of workers that serve. Freshness is measured at the first, values are checked at each.
            kafka: How the broker is reached, as librdkafka names it.
            registry: The definitions that the workers have.
            read: Returns how the platform stands; called in threads.
            headers: Sent with each read of features, such as an API key.
        """
        self._places = places
        self._kafka = kafka
        self._served = frozenset(f"{entry.group}:{entry.feature}" for entry in catalogue(registry))
        self._more = batch_features(registry, ENTITIES)
        self._read = read
        self._headers = headers
        self._stop = threading.Event()
        self.progress = Progress()

    def stop(self) -> None:
        """End the replay within a moment."""
        self._stop.set()

    async def refresh(self) -> None:
        """Read the worker's figures once more, for a screen that outlives the run."""
        self.progress.figures, self.progress.ingest = await asyncio.to_thread(self._read)
        await asyncio.sleep(_WATCH_S)

    async def run(self, *, live_events_per_s: float = LIVE_EVENTS_PER_S) -> Report:
        """Load the log, play its last part as if it happened now, check every served value.

        Raises:
            DemoError: Events were not accounted for in time.
            BrokerError: The replay failed.
        """
        events = load_log(_now_ms())
        self.progress.total = len(events)
        live = round(len(events) * LIVE_SHARE)
        past, latest = events[:-live], events[-live:]
        probe = FreshnessProbe(self._places[0], self._headers)
        replay = Replay(self._kafka, accounted=self._accounted, stop=self._stop)
        watcher = asyncio.create_task(self._watch(replay))
        prober = asyncio.create_task(probe.run())
        try:
            loading_s = await self._load(replay, probe, past)
            # Late by their times, they would be published like events of the past, of which many are flushed at once.
            latest = happening(latest, since=past, start_ms=_now_ms(), events_per_s=live_events_per_s)
            await self._live(replay, probe, latest, live_events_per_s)
            report = await self._check([*past, *latest], probe, loading_s)
        finally:
            self._stop.set()
            for task in (watcher, prober):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self.progress.report, self.progress.phase = report, "done"
        return report

    async def _load(self, replay: Replay, probe: FreshnessProbe, events: list[DemoEvent]) -> float:
        self.progress.phase = "loading"
        started = time.monotonic()
        loaded = await asyncio.to_thread(replay.load, events)
        await self._drain(loaded)
        loading_s = time.monotonic() - started
        self.progress.events_per_s = loaded / loading_s
        for event in events[:loaded]:
            probe.count(event)
        return loading_s

    async def _live(self, replay: Replay, probe: FreshnessProbe, events: list[DemoEvent], events_per_s: float) -> None:
        self.progress.phase = "live"
        self.progress.freshness_ms = probe.ms
        loop = asyncio.get_running_loop()

        def on_sent(event: DemoEvent) -> None:
            if WATCHED in self._served:
                loop.call_soon_threadsafe(probe.sent, event, time.perf_counter())

        await asyncio.to_thread(replay.live, events, on_sent, events_per_s=events_per_s)
        if not self._stop.is_set():
            await probe.drained()
            await self._drain(replay.sent)

    async def _check(self, events: list[DemoEvent], probe: FreshnessProbe, loading_s: float) -> Report:
        self.progress.phase = "checking"
        oracle = await asyncio.to_thread(Oracle, events, self._more)
        results = [
            await check_served(place, oracle, served=self._served, headers=self._headers) for place in self._places
        ]
        figures, _ = await asyncio.to_thread(self._read)
        is_told = figures.committed is None
        freshness, reads = _percentiles(probe.ms), _percentiles([ms for one in results for ms in one.read_ms])
        wrong = [line for one in results for line in one.first_wrong]
        values_wrong = sum(one.values_wrong for one in results)
        if not figures.has_each_once(len(events)) or probe.unseen:
            values_wrong += 1
            wrong.insert(0, f"not every event is in exactly one set: {figures}, {probe.unseen} never seen")
        return Report(
            events=len(events),
            applied=figures.events_applied if is_told else None,
            duplicates=figures.events_duplicate if is_told else None,
            late=figures.late if is_told else None,
            dead_letters=figures.dead_letters,
            values_checked=sum(one.values_checked for one in results),
            values_wrong=values_wrong,
            events_per_s=round(self.progress.events_per_s),
            freshness_ms_p50=freshness[0],
            freshness_ms_p99=freshness[1],
            read_ms_p50=reads[0],
            read_ms_p99=reads[1],
            not_compared=sorted(self._served.symmetric_difference(oracle.features())),
            first_wrong=wrong,
        )

    async def _drain(self, sent: int) -> None:
        progress_at, latest = time.monotonic(), (0, 0)
        while not self._stop.is_set():
            figures, ingest = await asyncio.to_thread(self._read)
            if figures.accounted >= sent and ingest.lag == 0:
                return
            if (figures.accounted, ingest.lag) != latest:
                progress_at, latest = time.monotonic(), (figures.accounted, ingest.lag)
            if time.monotonic() - progress_at > _STALL_S_MAX:
                raise DemoError(
                    f"{sent} events sent, {figures.accounted} accounted for, lag {ingest.lag}, no progress for "
                    f"{_STALL_S_MAX:.0f} s; see the workers' logs"
                )
            await asyncio.sleep(_POLL_S)

    async def _watch(self, replay: Replay) -> None:
        while True:
            with contextlib.suppress(OSError, BrokerError):
                self.progress.figures, self.progress.ingest = await asyncio.to_thread(self._read)
            self.progress.sent = replay.sent
            await asyncio.sleep(_WATCH_S)

    def _accounted(self) -> int:
        return self._read()[0].accounted


def _now_ms() -> int:
    return int(time.time() * 1000)


def _percentiles(values: list[float]) -> tuple[float | None, float | None]:
    """Return the median and the 99th percentile, in the values' unit."""
    if len(values) < 2:
        return None, None
    cuts = quantiles(values, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)
