"""``freshet services``: Kafka, Redis and DynamoDB Local on this machine, as plain processes, for developing."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.table import Table

from services.background import BackgroundServices, find_background, start_background, stop_background

cli = typer.Typer(no_args_is_help=True, help="Run Kafka, Redis and DynamoDB Local here, to develop.")
out, err = Console(), Console(stderr=True)

Directory = Annotated[Path, typer.Option(help="Where the services keep everything.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

DEFAULT_DIRECTORY = Path(".freshet") / "services"
TABLE = "freshet"
NAMES = (
    "FRESHET_BROKER", "FRESHET_REDIS", "FRESHET_RECORD", "FRESHET_REPLICATION", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)  # fmt: skip
REGION = "us-east-1"


@cli.command()
def up(
    *,
    brokers: Annotated[int, typer.Option(min=1, max=5, help="Kafka's brokers: one, or three that replicate.")] = 1,
    directory: Directory = DEFAULT_DIRECTORY,
    json_: Json = False,
) -> None:
    """Start the services, or find them running.

    Prints a worker's environment: eval "$(freshet services up)".
    """
    err.print(
        f"Kafka, Redis and DynamoDB Local in {directory} … (the first time 100 MB of jars are fetched)", soft_wrap=True
    )
    environment = environment_of(start_background(directory, brokers=brokers))
    if json_:
        sys.stdout.write(json.dumps(environment) + "\n")
        return
    for name, value in environment.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


@cli.command()
def status(*, directory: Directory = DEFAULT_DIRECTORY, json_: Json = False) -> None:
    """Tell what runs and where.

    The exit status is 0 if everything does, else 1.
    """
    found = find_background(directory.absolute())
    servers = found.servers if found is not None else ()
    states = ["runs" if server.is_alive else "ended" for server in servers]
    if json_:
        told = [{**asdict(server), "state": state} for server, state in zip(servers, states, strict=True)]
        sys.stdout.write(json.dumps({"servers": told}) + "\n")
    elif servers:
        table = Table("service", "state", "place", "process", box=None, header_style="bold")
        for server, state in zip(servers, states, strict=True):
            table.add_row(server.name, state, server.place, str(server.pid))
        out.print(table)
        out.print(f"data and logs: {directory}", soft_wrap=True)
    else:
        out.print(f"nothing was started in {directory}")
    if set(states) != {"runs"}:
        raise SystemExit(1)


@cli.command()
def down(*, directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop the services and remove everything they kept.

    Nothing happens where there are none.
    """
    stopped = stop_background(directory)
    err.print(f"{stopped} processes stopped, nothing is left in {directory}")
    if stopped:
        err.print(f"a shell with their environment: unset {' '.join(NAMES)}", soft_wrap=True)


def environment_of(services: BackgroundServices) -> dict[str, str]:
    """Return the settings of a worker on these services."""
    record = urlencode({"region": REGION, "endpoint": services.dynamodb_url}, safe=":/")
    return {
        "FRESHET_BROKER": services.bootstrap,
        "FRESHET_REDIS": services.redis_url,
        "FRESHET_REPLICATION": str(min(len(services.bootstrap.split(",")), 3)),
        "FRESHET_RECORD": f"dynamodb://{TABLE}?{record}",
        # DynamoDB Local takes any; they keep a client from looking for real ones, and from using them by mistake.
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
