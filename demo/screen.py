"""The demo's screen: live figures of a run, drawn from its progress."""

from statistics import quantiles

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.session import Progress

_PHASES = {
    "starting": "starting",
    "loading": "loading two days of events as fast as it can",
    "live": "playing the last events live",
    "checking": "reading every value over HTTP and comparing it with a brute-force count over the raw events",
    "done": "done; still serving. Ctrl-C stops everything",
}

_WRONG_LINES_MAX = 5
_NAMED_MAX = 3


def demo_screen(progress: Progress) -> RenderableType:
    """Return what a run looks like now."""
    figures, report = progress.figures, progress.report
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim", justify="right")
    table.add_column(justify="right")
    table.add_column(style="dim")
    # Whoever reads the README sends some of their own.
    own = f", {more:,} of your own" if (more := figures.accounted - progress.total) > 0 else ""
    table.add_row("events", f"{figures.accounted:,}", f"of {progress.total:,} in three topics{own}")
    table.add_row("applied", f"{figures.events_applied:,}", "counted in every entity that they touch")
    table.add_row("duplicates", f"{figures.events_duplicate:,}", "sent twice by the producer, counted once")
    table.add_row("late, dead letters", f"{figures.late:,}, {figures.dead_letters:,}", "kept with their reason")
    table.add_row(
        "feature rows",
        f"{progress.ingest.rows:,}",
        f"written {figures.rows_flushed:,} times, lag {progress.ingest.lag:,}",
    )
    if progress.events_per_s:
        table.add_row("load", f"{progress.events_per_s:,.0f}", "events per second, until durable in every store")
    if len(progress.freshness_ms) > 1:
        cuts = quantiles(progress.freshness_ms, n=100, method="inclusive")
        table.add_row("freshness", f"{cuts[49]:.0f} ms", f"produced to readable over HTTP; p99 {cuts[98]:.0f} ms")
    if report is not None:
        style = "bold green" if report.values_wrong == 0 else "bold red"
        checked = Text(f"{report.values_checked:,}", style=style)
        table.add_row("values checked", checked, Text(f"{report.values_wrong} wrong", style=style))
        if report.not_compared:
            table.add_row("not compared", f"{len(report.not_compared)}", _named(report.not_compared))
        for line in report.first_wrong[:_WRONG_LINES_MAX]:
            table.add_row("", "", Text(line, style="red"))
        table.add_row(
            "read", f"{report.read_ms_p50} ms", f"100 keys with all their features; p99 {report.read_ms_p99} ms"
        )
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(progress.total, 1), completed=figures.accounted, width=70))
    return Group(Text(_PHASES[progress.phase], style="bold"), bar, table)


def _named(features: list[str]) -> str:
    """Return what is said of features that are not compared."""
    more = f" and {len(features) - _NAMED_MAX} more" if len(features) > _NAMED_MAX else ""
    return f"{', '.join(features[:_NAMED_MAX])}{more}: what they must be is not known here"
