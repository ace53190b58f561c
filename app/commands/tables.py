"""Make the record's table in DynamoDB, or check it."""

import asyncio
from collections.abc import Awaitable, Callable

import typer
from rich.console import Console
from rich.text import Text

from app.settings import load_settings
from core.errors import ConfigurationError
from stores.dynamodb_calls import DynamoCalls
from stores.dynamodb_place import TablePlace
from stores.dynamodb_table import create_table, inspect_table

cli = typer.Typer(no_args_is_help=True, help=__doc__)
out = Console()


@cli.command()
def create() -> None:
    """Make the table that FRESHET_RECORD names.

    And switch on what protects it; what is there already stays.
    """
    _tell(create_table)


@cli.command()
def check() -> None:
    """Tell whether a worker could use the table, and what is off.

    The one that FRESHET_RECORD names; nothing is changed.
    """
    _tell(inspect_table)


def _tell(work: Callable[[DynamoCalls], Awaitable[list[str]]]) -> None:
    for line in asyncio.run(_with_client(_place(), work)):
        out.print(Text(line), soft_wrap=True)


def _place() -> TablePlace:
    place = load_settings().dynamodb_place()
    if place is None:
        raise ConfigurationError(
            "FRESHET_RECORD names no table of DynamoDB; set it to dynamodb://<table>?region=<region>, like "
            "dynamodb://freshet?region=eu-central-1"
        )
    return place


async def _with_client(place: TablePlace, work: Callable[[DynamoCalls], Awaitable[list[str]]]) -> list[str]:
    calls = DynamoCalls(place)
    try:
        return await work(calls)
    finally:
        await calls.close()
