"""``make bench-ingest``: events per second of ours and of its peers, in one run; last, one line of JSON.

Systems take turns over the rounds. Each has one core, broker, Redis and this process the other. The slow idioms get a
share of the events, in a topic of their own. Exits with 1 if an answer is wrong.
"""

import dataclasses
import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from bench.ingest import figures, ours
from bench.ingest.figures import Row, Run, headline, markdown, summarise, table
from bench.ingest.ground import Ground, open_ground
from bench.peers.running import PeerError, peers_python, run_peer
from bench.w1 import HOUR_MS, PARTITIONS, PURCHASES, last_window_ms, payload, purchases, spent
from demo.log import DemoEvent, load_log

_SYSTEM_CORE, _SERVICES_CORE = 0, 1
_SPAN_MS = 3 * HOUR_MS
_SHARE, _SHARE_EVENTS_MIN = 30, 500
_SHARE_TOPIC = "purchases.share"
_PEERS = {
    figures.FAUST: ("faust_w1", "hopping", _SHARE_TOPIC),
    figures.FAUST_TILES: ("faust_w1", "tiles", PURCHASES.topic),
    figures.QUIX: ("quix_w1", "hopping", _SHARE_TOPIC),
    figures.QUIX_TILES: ("quix_w1", "tiles", PURCHASES.topic),
    figures.BYTEWAX: ("bytewax_w1", "sliding", _SHARE_TOPIC),
    figures.BYTEWAX_TILES: ("bytewax_w1", "tiles", PURCHASES.topic),
}
Measure = Callable[[str], Run]


def main(
    events: int = 300_000, rounds: int = 3, only: str = "", out: Path = Path("bench-ingest"), *, peers: bool = True
) -> None:
    """Measure.

    Args:
        events: Purchases in the topic.
        rounds: How often each system runs.
        only: Systems with this in their names alone.
        out: Where to write, with .json, .md and .svg behind it.
        peers: Whether to run others beside ours; the first time their environment is made.
    """
    if peers:
        peers_python()
    with open_ground(core=_SERVICES_CORE) as ground:
        systems = _prepare(ground, events, rounds=rounds, peers=peers)
        runs = _run({name: run for name, run in systems.items() if only in name}, rounds)
    rows = {system: summarise(system, some) for system, some in runs.items()}
    _write(out, list(rows.values()), title=f"{events:,} events, {rounds} rounds")
    sys.stdout.write(json.dumps(headline(rows)) + "\n")
    sys.exit(any(row.wrong for row in rows.values()))


def _prepare(ground: Ground, number: int, *, rounds: int, peers: bool) -> dict[str, Measure]:
    """Fill the topics; return the systems in the order in which they run."""
    now_ms = time.time_ns() // 1_000_000
    bought = purchases(number, start_ms=now_ms - _SPAN_MS, apart_ms=_SPAN_MS / number)
    share = bought[:: max(1, min(_SHARE, number // _SHARE_EVENTS_MIN))]
    for topic, some in ((PURCHASES.topic, bought), (_SHARE_TOPIC, share)):
        records = ((str(one["user_id"]), one["time_ms"], payload(one)) for one in some)
        ground.fill(topic, records, partitions=PARTITIONS)
    log = load_log(now_ms)
    for topic in {event.topic for event in log}:
        ground.fill(topic, _records(log, topic), partitions=PARTITIONS)
    workers = ours.Workers(ground, _SYSTEM_CORE)

    def demo(name: str) -> Run:
        # Half a million values take longer to compare than the run itself.
        return ours.run_demo(workers, log, name, check=name == f"round{rounds}")

    mine: dict[str, Measure] = {
        figures.PATH: partial(ours.run_path, workers, bought),
        figures.AGGREGATOR: partial(ours.run_aggregator, workers, bought),
        figures.DISPATCHER: partial(ours.run_dispatcher, workers, bought),
        figures.TWO: partial(ours.run_two, workers, bought),
        figures.DEMO: demo,
    }
    if not peers:
        return mine
    theirs = {
        system: partial(_run_peer, ground, script, variant, topic, bought if topic == PURCHASES.topic else share)
        for system, (script, variant, topic) in _PEERS.items()
    }
    # Interleaved: while a peer runs, the members that our last worker was are forgotten. The aggregator runs over what
    # the path has dispatched.
    order = [name for pair in zip(mine, theirs, strict=False) for name in pair]
    order += [name for name in (*mine, *theirs) if name not in order]
    return {name: (mine | theirs)[name] for name in order}


def _records(log: Sequence[DemoEvent], topic: str) -> Iterable[tuple[str, int, bytes]]:
    return ((one.key, one.time_ms, json.dumps(one.fields).encode()) for one in log if one.topic == topic)


def _run_peer(
    ground: Ground, script: str, variant: str, topic: str, events: Sequence[dict[str, Any]], _name: str
) -> Run:
    window_ms = last_window_ms(events)
    ran = run_peer(
        script,
        variant,
        broker=ground.broker,
        topic=topic,
        events=len(events),
        window_ms=window_ms,
        core=_SYSTEM_CORE,
    )
    expected = spent(events, from_ms=window_ms, to_ms=window_ms + HOUR_MS)
    wrong = sum(ran.answers.get(user) != answer for user, answer in expected.items())
    return Run(len(events), ran.seconds, ran.cpu_s, ran.peak_bytes, wrong)


def _run(systems: dict[str, Measure], rounds: int) -> dict[str, list[Run]]:
    runs: defaultdict[str, list[Run]] = defaultdict(list)
    for number in range(1, rounds + 1):
        for system, measure in systems.items():
            try:
                run = measure(f"round{number}")
            except PeerError as error:
                sys.exit(f"bench: {error}")
            runs[system].append(run)
            sys.stderr.write(f"{number}: {system}: {run.events_per_s:,.0f}/s, {run.wrong} wrong\n")
    return runs


def _write(out: Path, rows: Sequence[Row], *, title: str) -> None:
    shown = table(rows, title=title)
    Console(width=150).print(shown)
    out.with_suffix(".json").write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(rows) + "\n")
    picture = Console(record=True, width=140, file=io.StringIO())
    picture.print(shown)
    picture.save_svg(str(out.with_suffix(".svg")), title="make bench-ingest")


if __name__ == "__main__":
    typer.run(main)
