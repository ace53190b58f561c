"""``freshet topics``: make Freshet's topics with their settings, and tell what is wrong with those that are there."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from app.endpoints import kept_record
from app.kafka.access import kafka_access
from app.kafka.admin import KafkaAdmin
from app.kafka.ground import told
from app.kafka.probe import require_kafka
from app.kafka.topic_ids import accept_topic_ids
from app.kafka.topics import REPLICAS_MAX, Kind, check_topics, plan_topics, replicas_wanted
from app.settings import Settings, load_settings
from core.errors import ConfigurationError

cli = typer.Typer(no_args_is_help=True, help="Topics in Kafka: make, check, accept.")
out = Console(soft_wrap=True, highlight=False, markup=False)


@cli.command()
def create(
    *,
    sources: Annotated[
        int, typer.Option(min=0, max=1_000, help="Make missing sources too, with so many partitions: for developing.")
    ] = 0,
) -> None:
    """Make every topic of Freshet's own that is missing.

    What exists is left as it is, and checked.
    """
    settings, admin = _open()
    plans = plan_topics(settings.load_registry())
    found = admin.topics([plan.name for plan in plans])
    missing = [plan for plan in plans if plan.name not in found and (sources or plan.kind is not Kind.SOURCE)]
    replicas = replicas_wanted(settings.replication, admin.brokers())
    new = [plan.new(replicas=replicas, partitions=sources if plan.kind is Kind.SOURCE else 1) for plan in missing]
    admin.create(new)
    for one in new:
        out.print(f"made {one.name}: {one.partitions} partitions, {one.replicas} replicas")
    if new and not settings.replication and replicas < REPLICAS_MAX:
        out.print(
            f"{replicas} replicas instead of {REPLICAS_MAX}, for no more brokers are up: if others are only away, "
            f"delete these topics and make them again when all are up; else set FRESHET_REPLICATION={replicas}"
        )
    _check(settings, admin)


@cli.command()
def check() -> None:
    """Tell every problem of the topics at once.

    What, where, and what to do.
    """
    _check(*_open())


@cli.command()
def accept(
    topics: Annotated[list[str], typer.Argument(help="Topics that were made anew.")],
) -> None:
    """Go on with topics that were made anew.

    Once what was lost with the old ones is known: docs/how-to/recover.md.
    """
    settings, admin = _open()
    registry = settings.load_registry()
    known = {plan.name for plan in plan_topics(registry)}
    ids = {name: topic_id for name, (topic_id, _, _) in admin.topic_facts(topics).items() if name in known}
    if len(ids) < len(set(topics)):
        raise ConfigurationError(f"no such topics of Freshet in Kafka: {', '.join(sorted(set(topics) - set(ids)))}")
    for topic in asyncio.run(_accept(settings, ids)):
        out.print(f"accepted {topic} with id {ids[topic]}")


async def _accept(settings: Settings, ids: dict[str, str]) -> list[str]:
    async with kept_record(settings) as record:
        return await accept_topic_ids(record, ids)


def _check(settings: Settings, admin: KafkaAdmin) -> None:
    plans = plan_topics(settings.load_registry())
    found = admin.topics([plan.name for plan in plans])
    problems = check_topics(plans, found, replicas=replicas_wanted(settings.replication, admin.brokers()))
    if problems:
        out.print(told(problems))
        raise SystemExit(1)
    out.print(f"{len(plans)} topics: no problems")


def _open() -> tuple[Settings, KafkaAdmin]:
    settings = load_settings()
    if settings.is_embedded:
        raise ConfigurationError("the embedded broker makes its topics itself; set FRESHET_BROKER to a real one")
    access = kafka_access(settings)
    require_kafka(access)
    return settings, KafkaAdmin(access)
