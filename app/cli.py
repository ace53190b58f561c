"""The command line: try Freshet, check definitions, list features, send events, see what could not be used."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from yarl import URL

from app.applied_versions import Applied, resolve_versions
from app.commands import cache, dead_letters, keys, roles, services, tables, topics
from app.demo import STARTING, open_demo, require_alive, run_demo, running
from app.demo_at import run_demo_at
from app.endpoints import kept_record
from app.locate import locate_names
from app.record_check import check_record
from app.reference import aggregations_markdown, page_table, settings_markdown
from app.runtime import keep_runtime, running_access
from app.send import read_events, send_events
from app.settings import REFUSED_BY_BROWSERS, Settings, load_settings
from core.catalogue import CatalogueEntry, catalogue
from core.check import Problem, check_registry
from core.errors import ConfigurationError, FreshetError
from core.plans import plan_group
from demo.narration import Narration
from demo.screen import demo_screen
from demo.session import Session

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)
cli.add_typer(services.cli, name="services")
cli.add_typer(keys.cli, name="keys")
cli.add_typer(cache.cli, name="cache")
cli.add_typer(dead_letters.cli, name="dead-letters")
cli.add_typer(topics.cli, name="topics")
cli.add_typer(roles.cli, name="roles")
out, err = Console(), Console(stderr=True)
cli.add_typer(tables.cli, name="tables")


def main() -> None:
    """Run the command line; a mistake that a user can mend is told in one sentence, without a trace."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        cli()
    except FreshetError as error:
        err.print(Text(f"freshet: {error}", style="red"), soft_wrap=True)
        raise SystemExit(2) from None


@cli.command()
def demo(
    *,
    exit_: Annotated[bool, typer.Option("--exit", help="Run once to the end, then stop.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object (with --exit).")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the last screen as an SVG (with --exit).")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Start nothing: replay into FRESHET_BROKER, read at this worker; may be repeated."
        ),
    ] = None,
) -> None:
    """Run everything here, on two days of real events.

    One worker with its services beside it; every value that it serves is compared with a count over the events.
    """
    settings = load_settings()
    if at and (picture or not exit_):
        raise ConfigurationError("--at runs once and has no screen: add --exit, and leave --picture out")
    if (json_ or picture) and not exit_:
        raise ConfigurationError("--json and --picture tell the end of a run: add --exit")
    if exit_:
        report = _run(run_demo_at(settings, at, say=_say) if at else run_demo(settings, say=_say, picture=picture))
        if json_:
            sys.stdout.write(json.dumps(report.as_json()) + "\n")
        else:
            for name, value in report.as_json().items():
                out.print(f"{name:>20}  {value}", highlight=False)
        raise SystemExit(1 if report.values_wrong else 0)
    _run(_watch_demo(settings))


@cli.command()
def check(
    registry: Annotated[str, typer.Option(metavar="PLACE", help="Definitions to check, as package.module:NAME.")] = "",
) -> None:
    """Tell every problem of the definitions at once.

    Where, why, and what to do; errors stop the start of a worker, warnings do not.
    """
    settings = load_settings(registry=registry) if registry else load_settings()
    loaded = settings.load_registry()
    problems = check_registry(loaded)
    package = settings.registry.partition(":")[0]
    for problem in problems:
        style = "red" if problem.severity == "error" else "yellow"
        out.print(
            Text.assemble(
                (f"{problem.severity}: ", style),
                f"{_file_of(package, problem)}: {problem.where}: {problem.reason}; {problem.remedy}",
            ),
            soft_wrap=True,
        )
    errors = sum(problem.severity == "error" for problem in problems)
    features = sum(len(plan_group(group).features) for group in loaded.groups) if not errors else 0
    warnings = _counted(len(problems) - errors, "warning")
    if errors:
        out.print(f"{_counted(errors, 'error')}, {warnings}")
        raise SystemExit(1)
    made = sum(len(group.features) for group in loaded.on_demand)
    made += sum(len(source.returns) for source in loaded.on_demand_sources)
    on_demand = f"{made} on demand, " if made else ""
    told = f", {warnings}" if problems else ""
    out.print(
        f"{len(loaded.groups)} groups, {features} features, {on_demand}{len(loaded.services)} services: no errors{told}"
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


@cli.command()
def features(
    group: Annotated[str, typer.Argument(help="Show the features of this group alone.")] = "",
    *,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List features by group: types, units, meanings, owners."""
    entries = [entry for entry in catalogue(load_settings().load_registry()) if group in ("", entry.group)]
    if not entries:
        raise ConfigurationError(f"there is no group {group!r}; `freshet features` lists all")
    if json_:
        for entry in entries:
            sys.stdout.write(json.dumps({**asdict(entry), "value_type": entry.value_type.value}) + "\n")
        return
    for name, members in groupby(entries, key=lambda entry: entry.group):
        out.print(_group_table(name, list(members)))
        out.print()


@cli.command()
def settings() -> None:
    """Print every setting: its default and its meaning.

    Into a file or a pipe as Markdown: docs/reference/settings.md is this.
    """
    _print_page(settings_markdown())


@cli.command()
def aggregations() -> None:
    """Print what a feature can be made of.

    Into a file or a pipe as Markdown: docs/reference/aggregations.md is this.
    """
    _print_page(aggregations_markdown())


@cli.command()
def apply() -> None:
    """Write new definitions into the record.

    A worker on a record that is kept refuses others to be served, unless FRESHET_APPLY is true.
    """
    settings = load_settings()
    registry = settings.load_registry()
    plans = [plan_group(group) for group in registry.groups]
    applied = _run(_apply(settings, plans))
    for group, number in applied.numbers.items():
        out.print(f"{group}@v{number}" + (": new, its rows begin empty" if group in applied.new else ""))
    if any(applied.numbers[group] > 1 for group in applied.new):
        out.print(
            "a group of a new meaning serves nothing of before: its windows fill from now on; to add a feature without "
            "that, give it a group of its own", soft_wrap=True,
        )  # fmt: skip


@cli.command()
def send(
    topic: Annotated[str, typer.Argument(help="A source's topic.")],
    events: Annotated[list[str], typer.Argument(help="Events as JSON; - reads lines from standard input.")],
    *,
    anyway: Annotated[bool, typer.Option("--anyway", help="Send also what will end as a dead letter.")] = False,
) -> None:
    """Send events to a source.

    To the demo that runs in this directory or to FRESHET_BROKER; waits for the broker's acknowledgement.
    """
    settings = load_settings()
    lines = [
        line
        for event in events
        for line in (sys.stdin.read().splitlines() if event == "-" else [event])
        if line.strip()
    ]
    read = read_events(settings.load_registry(), topic, lines, anyway=anyway)
    sent = send_events(running_access(settings), topic, read)
    out.print(f"{sent} sent to {topic}")


def _print_page(markdown: str) -> None:
    if out.is_terminal:
        out.print(page_table(markdown))
    else:
        sys.stdout.write(markdown)


def _group_table(name: str, entries: Sequence[CatalogueEntry]) -> Table:
    """Return a group's features, windows of one together; what does not fit goes on in the next line, all is there."""
    first = entries[0]
    table = Table(
        title=f"{name}: by {', '.join(first.keys)}; owner {first.owner}",
        title_justify="left", title_style="bold", box=None, header_style="dim",
    )  # fmt: skip
    table.add_column("feature", no_wrap=True)
    for column in ("type", "unit", "unknown\nkey", "meaning"):
        table.add_column(column, overflow="fold")
    for _, windows in groupby(entries, key=lambda entry: entry.feature.removesuffix(f"_{entry.window}")):
        same = list(windows)
        entry = same[0]
        table.add_row(
            "\n".join(f"{one.group}:{one.feature}" for one in same),
            entry.value_type.value,
            entry.unit,
            json.dumps(entry.default),
            Text("\n".join(filter(None, (entry.description, entry.definition)))),
        )
    return table


def _file_of(package: str, problem: Problem) -> str:
    """Return where a problem stands; its place reads like ``group user_engagement, feature ctr``."""
    return locate_names(package, [part.rpartition(" ")[2] for part in problem.where.split(", ")])


async def _apply(settings: Settings, plans: list[Any]) -> Applied:
    async with kept_record(settings) as record:
        await check_record(record)
        return await resolve_versions(record, plans, may_apply=True)


async def _watch_demo(settings: Settings) -> None:
    out.print(STARTING)
    async with open_demo(settings, any_port=False) as (session, worker, services):
        with keep_runtime(broker=services.broker, base_url=worker.base_url):
            out.print(Text.assemble("Serving at ", (worker.base_url, "bold"), f", log in {worker.log}"))
            page_port = settings.page_port_beside(settings.web_port)
            if not page_port and settings.web_port not in REFUSED_BY_BROWSERS:
                page_port = settings.web_port
            if page_port:
                out.print(Text.assemble("Look at ", (f"{URL(settings.base_url).with_port(page_port)}/", "bold")))
            if services.redis_url is None:
                out.print("There is no redis-server here: reads go to the record (SQLite).", style="yellow")
            out.print(Text(curl_line(worker.base_url), style="cyan"), soft_wrap=True)
            async with running(session, worker, services) as run:
                with _shown(session) as show:
                    while True:
                        show()
                        if run.done():
                            run.result()
                            await session.refresh()
                        require_alive(worker, services)
                        await asyncio.sleep(0.25)


@contextlib.contextmanager
def _shown(session: Session) -> Iterator[Callable[[], None]]:
    """Show a run on a screen, or in lines where the output is none; yields what shows how it stands."""
    if out.is_terminal:
        with Live(demo_screen(session.progress), console=out, refresh_per_second=4) as live:
            yield lambda: live.update(demo_screen(session.progress))
        return
    narration, is_told = Narration(lambda line: out.print(line, highlight=False, soft_wrap=True)), False

    def show() -> None:
        nonlocal is_told
        narration.look(session.progress)
        if session.progress.report is not None and not is_told:
            is_told = True
            out.print(demo_screen(session.progress))

    yield show


def _say(line: str) -> None:
    err.print(Text(line, style="dim"), soft_wrap=True)


def curl_line(base_url: str) -> str:
    """Return a command that reads a user's features."""
    body = '{"feature_service": "home_feed", "entities": {"user_id": [150]}}'
    return f"curl -s {base_url}/get-online-features -d '{body}'"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; SIGINT and SIGTERM cancel, so that everything that was started is stopped."""

    async def cancellable() -> Any:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await task

    with contextlib.suppress(asyncio.CancelledError):
        return asyncio.run(cancellable())
    out.print("stopped")
    raise SystemExit(130)
