"""The pure parts of ``make bench-scale``: a wrong ruler would measure anything as straight."""

import json
from collections import Counter

import pytest
from rich.console import Console

from bench.scale.case import Case
from bench.scale.cost import Cost
from bench.scale.figures import Found, headline, markdown, tables
from bench.scale.memory import Held
from bench.scale.shape import exponent, flat, linear, small, sub_linear
from bench.scale.workers import Together
from bench.steps import STEPS, Bench, Tables
from core.windows import days, minutes


def cost(case: Case, us: float) -> Cost:
    return Cost(case, dict.fromkeys(STEPS, us / len(STEPS)), rows_per_event=0.5, thaw_us=4.0)


FOUND = Found(
    events=[cost(Case(events=number), 10.0) for number in (1_000, 4_000)],
    groups=[cost(Case(groups=number), 5.0 * number) for number in (1, 64)],
    windows=[cost(Case(window=span), 10.0) for span in (minutes(5), days(30))],
    keys=[cost(Case(keys=number), us) for number, us in ((1_000, 10.0), (1_000_000, 12.0), (10_000_000, 99.0))],
    even_keys=[cost(Case(keys=number), us) for number, us in ((1_000, 10.0), (1_000_000, 20.0))],
    hot=[cost(Case(), 10.0), cost(Case(hot=0.5), 8.0)],
    held=[Held(1_000, 200.0, 3_000.0), Held(1_000_000, 200.0, 500.0)],
    workers=[
        Together(1, 20_000.0, 25.0, shares=(1.0,), wrong=0),
        Together(2, 30_000.0, 30.0, shares=(0.6, 0.4), wrong=1),
    ],
)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power):
    """
    Whoever plans a hundred times as many events goes by this number.
    """
    sizes = [1, 3, 10, 30, 100]

    assert exponent(sizes, [7.0 * size**power for size in sizes]) == power


def test_what_is_asked_is_held_against_what_was_found():
    """
    A cost that grows with the square of events must not be called linear, nor a dear key flat.
    """
    sizes = [1, 10, 100]

    assert linear("n", sizes, sizes).is_met
    assert not linear("n", sizes, [size**2 for size in sizes]).is_met
    assert not linear("n", sizes, [1, 1, 1]).is_met
    assert sub_linear("g", sizes, [1, 5, 25]).is_met
    assert not sub_linear("g", sizes, sizes).is_met
    assert [flat("r", ratio).is_met for ratio in (0.5, 1.3, 1.31)] == [True, True, False]
    assert [small("b", size).is_met for size in (1_024, 1_025)] == [True, False]


def test_the_last_line_tells_shapes_workers_and_wrong_answers():
    """
    Keys are compared at a thousand and a million, whatever else was measured; an answer that is wrong is in the line.
    """
    line = json.loads(json.dumps(headline(FOUND)))

    assert line["events_slope"] == 1.0
    assert line["groups_slope"] == 1.0
    assert (line["keys_ratio_1k_1m"], line["even_keys_ratio_1k_1m"]) == (1.2, 2.0)
    assert (line["hot_key_ratio"], line["overhead_bytes_per_row"]) == (0.8, 500)
    assert (line["one_worker_per_s"], line["two_workers_per_s"], line["answers_wrong"]) == (20_000, 30_000, 1)
    assert line["flush_us_per_row"] == {"1000": 4.0, "1000000": 4.8, "10000000": 39.6}


def test_tables_and_markdown_show_every_size():
    """
    What is not met must be read where the rest is read.
    """
    console = Console(width=130, record=True)

    for table in tables(FOUND):
        console.print(table)

    shown = console.export_text()
    for text in ("10,000,000", "30 d", "5 min", "50%", "60% 40%", "not met", "30,000"):
        assert text in shown
    assert "| `groups_slope` | 1.0 | sub-linear: below 1 | **not met** |" in markdown(FOUND)


def test_all_events_of_a_case_are_added_to_the_youngest_tile():
    """
    Events that are taken for replays, or fall into tiles that are past, would cost nothing and be the best figures.
    """
    case = Case(events=200, groups=2, keys=50)
    tables = Bench(case.load(0)).tables()
    case.fill(tables)
    before = _purchases(tables)

    for first in (0, 200):
        Bench(case.load(first)).round(tables)

    assert {number: after - before[number] for number, after in _purchases(tables).items()} == {0: 400, 1: 400}


def _purchases(tables: Tables) -> Counter[int]:
    """Purchases in all rows, of which each has as many in each of its tiles, by the number of the group."""
    found: Counter[int] = Counter()
    for table in tables.values():
        for number, group in enumerate(table.groups):
            for key, _ in list(group.packed()):
                youngest = max(group.row(key).tiles[0].items())[1]
                found[number] += min(youngest[1:])
    return found


def test_some_users_buy_more_often_unless_all_are_alike():
    """
    A hot key that is not hot would show that hot keys cost nothing.
    """
    cases = [Case(events=2_000, keys=50, even=True), Case(events=2_000, keys=50), Case(events=2_000, keys=50, hot=0.5)]

    even, skewed, hot = (Counter(json.loads(one.value)["user_id"] for one in case.load(0).records) for case in cases)

    assert max(even.values()) < 80
    assert skewed[0] == max(skewed.values()) > 300
    assert hot[0] > 1_000
    assert len(even) == 50
