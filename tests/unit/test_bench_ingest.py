"""The pure parts of ``make bench-ingest``: a wrong yardstick would make every figure wrong."""

import json
from collections import defaultdict

from rich.console import Console

from bench.ingest.figures import AGGREGATOR, BYTEWAX_TILES, PATH, Run, headline, markdown, summarise, table
from bench.peers.meter import add, sum_of
from bench.w1 import HOUR_MS, Purchase, Spent, last_window_ms, payload, purchases, spent

START_MS = 1_700_000_000_000
EVENTS = purchases(3_000, start_ms=START_MS, apart_ms=3_600, users=50)


def run(seconds: float, wrong: int = 0) -> Run:
    return Run(1_000, seconds, cpu_s=seconds / 2, peak_bytes=2**20, wrong=wrong)


def test_hand_written_tiles_of_the_peers_hold_the_reference():
    """
    Each peer is held against the reference: tiles that are cut off too early would be blamed on the peer.
    """
    tiles: defaultdict[int, dict] = defaultdict(dict)
    for event in EVENTS:
        add(tiles[event["user_id"]], event, str)
    start_ms = last_window_ms(EVENTS)

    found = {user: Spent(*sum_of(one, start_ms, str)) for user, one in tiles.items()}

    expected = spent(EVENTS, from_ms=start_ms, to_ms=start_ms + HOUR_MS)
    assert len(expected) > 40
    assert {user: one for user, one in found.items() if one.purchases} == expected


def test_purchases_are_valid_skewed_and_the_same_each_time():
    """
    Two machines can be compared only if they count the same events.
    """
    assert purchases(3_000, start_ms=START_MS, apart_ms=3_600, users=50) == EVENTS
    assert all(Purchase.model_validate(event) for event in EVENTS[:50])
    assert 130 < len(payload(EVENTS[0])) < 170
    first, tenth = (sum(event["user_id"] == user for event in EVENTS) for user in (0, 9))
    assert 5 < first / tenth < 20


def test_ratios_are_of_medians_and_wrong_answers_are_summed():
    """
    A single lucky round must not become the headline, nor one wrong answer vanish in a median.
    """
    rows = {
        AGGREGATOR: summarise(AGGREGATOR, [run(1.0), run(0.1), run(2.0)]),
        BYTEWAX_TILES: summarise(BYTEWAX_TILES, [run(4.0, wrong=1), run(2.0), run(8.0)]),
    }

    told = json.loads(json.dumps(headline(rows)))

    assert told == {"aggregator_events_per_s": 1_000, "x_bytewax_tiles": 4.0, "answers_wrong": 1}
    assert PATH not in rows


def test_the_table_has_the_fastest_first():
    """
    Whoever reads two lines of the table must have read the right two.
    """
    rows = [summarise("slow", [run(2.0)]), summarise("fast", [run(1.0)])]
    console = Console(width=130, record=True)

    console.print(table(rows, title="t"))

    shown = console.export_text()
    assert shown.index("fast") < shown.index("slow")
    assert markdown(rows).splitlines()[2].startswith("| fast | 1,000 | 1,000 - 1,000 | 500 | 1 | 1,000 |")
