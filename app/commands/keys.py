"""``freshet keys``: keys for those who read from workers, send to them, or look after them."""

from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich.console import Console

from core.access import Scope, new_key
from core.errors import ConfigurationError

cli = typer.Typer(no_args_is_help=True, help="Make keys for workers that others may reach.")
out = Console()


@cli.callback()
def keys() -> None:
    """Make keys for workers that others may reach."""


@cli.command()
def new(
    name: Annotated[str, typer.Option(help="Who holds it: small letters, digits, - and _.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    last_day: Annotated[str, typer.Option(help="YYYY-MM-DD, the last day (UTC) on which it is valid.")] = "",
) -> None:
    """Print a new key, once, and its line for FRESHET_API_KEYS.

    There is no secret in the line.
    """
    key, configured = new_key(name, scope, _day(last_day))
    out.print(f"key of {name}, shown this once: {key}", highlight=False, soft_wrap=True)
    out.print(f"line for FRESHET_API_KEYS: {configured.line}", highlight=False, soft_wrap=True)


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--last-day {text}: a day is written YYYY-MM-DD") from error
    if day < datetime.now(UTC).date():
        raise ConfigurationError(f"--last-day {text} is past: the key would be refused from the start")
    return day
