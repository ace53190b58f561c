"""What runs came to: medians over rounds, ratios, a table with bars. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.bar import Bar
from rich.table import Table

AGGREGATOR, DISPATCHER, PATH = "Freshet, aggregator alone", "Freshet, dispatcher alone", "Freshet, whole path"
TWO, DEMO = "Freshet, whole path in two processes", "Freshet, demo with 5 groups"
FAUST, FAUST_TILES = "Faust, Record + hopping", "Faust, tuned tiles"
QUIX, QUIX_TILES = "Quix Streams, hopping", "Quix Streams, tiles"
BYTEWAX, BYTEWAX_TILES = "Bytewax, sliding", "Bytewax, tiles"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one system.

    Attributes:
        seconds: From its first event to its last.
        cpu_s: CPU time of its processes in between.
        peak_bytes: Most memory that they had.
        wrong: Answers that are not the reference's.
    """

    events: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    wrong: int

    @property
    def events_per_s(self) -> float:
        """Return its rate."""
        return self.events / self.seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A system's runs together: medians, except for what must not be hidden."""

    system: str
    events: int
    events_per_s: float
    least: float
    most: float
    cpu_s_per_million: float
    peak_bytes: float
    wrong: int


def summarise(system: str, runs: Sequence[Run]) -> Row:
    """Return the row of a system.

    >>> row = summarise("x", [Run(10, s, cpu_s=s, peak_bytes=1, wrong=1) for s in (1.0, 2.0, 5.0)])
    >>> row.events_per_s, row.least, row.most, row.cpu_s_per_million, row.wrong
    (5.0, 2.0, 10.0, 200000.0, 3)
    """
    rates = [run.events_per_s for run in runs]
    return Row(
        system,
        runs[0].events,
        median(rates),
        min(rates),
        max(rates),
        cpu_s_per_million=median(run.cpu_s / run.events * 1e6 for run in runs),
        peak_bytes=max(run.peak_bytes for run in runs),
        wrong=sum(run.wrong for run in runs),
    )


def headline(rows: Mapping[str, Row]) -> dict[str, float]:
    """Return the figures of the last line; a system that was not run is left out, with its ratio."""
    ours = {
        "aggregator_events_per_s": AGGREGATOR,
        "dispatcher_events_per_s": DISPATCHER,
        "path_events_per_s": PATH,
        "two_processes_events_per_s": TWO,
        "demo_path_events_per_s": DEMO,
    }
    peers = {
        "x_faust_idiomatic": FAUST,
        "x_faust_tiles": FAUST_TILES,
        "x_bytewax_tiles": BYTEWAX_TILES,
        "x_quix_tiles": QUIX_TILES,
    }
    told: dict[str, float] = {name: round(rows[one].events_per_s) for name, one in ours.items() if one in rows}
    if AGGREGATOR in rows:
        best = rows[AGGREGATOR].events_per_s
        told |= {name: round(best / rows[one].events_per_s, 2) for name, one in peers.items() if one in rows}
    return told | {"answers_wrong": sum(row.wrong for row in rows.values())}


def table(rows: Sequence[Row], *, title: str) -> Table:
    """Return a table, fastest first, with bars."""
    shown = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in ("system", "events/s", "", "least - most", "CPU s/million", "peak MB", "wrong", "events"):
        shown.add_column(name, justify="left" if name in ("system", "") else "right", no_wrap=True)
    fastest = max(row.events_per_s for row in rows)
    for row in sorted(rows, key=lambda row: -row.events_per_s):
        color = "green" if row.system.startswith("Freshet") else "blue"
        shown.add_row(
            row.system,
            f"{row.events_per_s:,.0f}",
            Bar(fastest, 0, row.events_per_s, width=24, color=color),
            f"{row.least:,.0f} - {row.most:,.0f}",
            f"{row.cpu_s_per_million:,.0f}",
            f"{row.peak_bytes / 2**20:,.0f}",
            str(row.wrong),
            f"{row.events:,}",
        )
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """Return the same in Markdown, without bars."""
    lines = [
        "| system | events/s | least - most | CPU s per million | peak MB | events |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.system} | {row.events_per_s:,.0f} | {row.least:,.0f} - {row.most:,.0f} | {row.cpu_s_per_million:,.0f} "
        f"| {row.peak_bytes / 2**20:,.0f} | {row.events:,} |"
        for row in sorted(rows, key=lambda row: -row.events_per_s)
    ]
    return "\n".join(lines)
