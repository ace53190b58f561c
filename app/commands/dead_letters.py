"""``freshet dead-letters``: look at events that could not be used, mend them, and send them again."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.decode import decoders_of
from app.dead_letters import facts_of, find_dead_letter, list_dead_letters
from app.replay import Replay
from app.runtime import running_access
from app.settings import load_settings
from core.errors import ConfigurationError

cli = typer.Typer(help="List events that could not be used, and replay them.")
out = Console()

_Reason = Annotated[str, typer.Option(help="Only this reason.")]
_Source = Annotated[str, typer.Option(help="Only those of this source.")]


@cli.callback(invoke_without_command=True)
def dead_letters(context: typer.Context) -> None:
    """List events that could not be used, show one, and replay them.

    Without a command it lists the newest 50.
    """
    if context.invoked_subcommand is None:
        listing()


@cli.command("list")
def listing(
    *,
    reason: _Reason = "",
    source: _Source = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at the most, newest last.")] = 50,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List them: where they stood, why, and the payload."""
    letters = list_dead_letters(running_access(load_settings()), reason=reason, source=source, limit=limit)
    if json_:
        for letter in letters:
            sys.stdout.write(json.dumps(letter) + "\n")
        return
    table = Table("event", "reason", "detail", "payload", box=None, header_style="bold")
    for letter in letters:
        place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
        reason_told = f"{letter['reason']}, replayed" if letter["replayed"] else letter["reason"]
        table.add_row(place, reason_told, Text(letter["detail"]), Text(letter["payload"][:120]))
    out.print(table if letters else "no dead letters")


@cli.command()
def show(
    place: Annotated[str, typer.Argument(help="topic/partition/offset")],
    *,
    payload: Annotated[
        bool, typer.Option("--payload", help="Print the payload alone, as it came, to mend it.")
    ] = False,
) -> None:
    """Show one, whole."""
    letter = find_dead_letter(running_access(load_settings()), place)
    if payload:
        sys.stdout.buffer.write(letter.payload or b"")
    else:
        sys.stdout.write(json.dumps(facts_of(letter), indent=2) + "\n")


@cli.command()
def replay(
    place: Annotated[str, typer.Argument(help="topic/partition/offset; without it all that are not replayed")] = "",
    *,
    reason: _Reason = "",
    source: _Source = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at the most, oldest first.")] = 1_000,
    payload: Annotated[str, typer.Option(help="File with the mended payload of one event; - is standard input.")] = "",
) -> None:
    """Send them again through their source, mended or as they are.

    With their own times, and each once, however often this is run.
    """
    settings = load_settings()
    registry = settings.load_registry()
    if payload and not place:
        raise ConfigurationError("--payload mends one event: name it by topic/partition/offset")
    decoders = decoders_of(registry)
    mended = _read(payload) if payload else None
    done = Replay(running_access(settings), decoders).run(
        place=place, reason=reason, source=source, limit=limit, payload=mended
    )
    for kept, why in done.kept.items():
        out.print(Text(f"{kept}: {why}"), soft_wrap=True)
    out.print(f"{len(done.sent)} replayed, {len(done.kept)} kept")


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--payload {file}: {error.strerror}") from error
