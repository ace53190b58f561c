"""``freshet roles``: from one role that does everything to split roles, and back."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from app.kafka.access import kafka_access
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import migrate as migrate_offsets
from app.kafka.probe import require_kafka
from app.settings import load_settings
from core.errors import ConfigurationError

cli = typer.Typer(help="Hand over from workers of role all to others, or back.")
out = Console(soft_wrap=True, highlight=False, markup=False)


class Way(StrEnum):
    """Where to."""

    SPLIT = "split"
    ALL = "all"


@cli.callback()
def roles() -> None:
    """Roles of workers."""


@cli.command()
def migrate(
    to: Annotated[Way, typer.Argument(help="split: to dispatchers and aggregators; all: back to workers of role all.")],
) -> None:
    """Hand committed offsets over, with all workers stopped.

    Running it again changes nothing.
    """
    settings = load_settings()
    if settings.is_embedded:
        raise ConfigurationError("the embedded broker serves one worker of role all; set FRESHET_BROKER to a real one")
    access = kafka_access(settings)
    require_kafka(access)
    for line in migrate_offsets(KafkaAdmin(access), settings.load_registry(), to_split=to is Way.SPLIT):
        out.print(line)
