"""What the sweeps came to: shapes, tables with bars, and the last line of JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.bar import Bar
from rich.table import Table

from bench.scale.cost import Cost
from bench.scale.memory import Held
from bench.scale.shape import Shape, flat, linear, small, sub_linear
from bench.scale.workers import Together

_STEPS = {"decode": "decode", "pack": "dispatch", "unpack": "unpack", "apply": "apply", "freeze": "flush"}
_BAR = 24


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that was measured; each sweep in the order of what grows.

    Attributes:
        keys: Some users buy much more often than others, as in W1.
        even_keys: All users buy as often.
        hot: Without a hot key, and with one that has half of the events.
        held: Rows of a small table, all of them live, and of a large one.
    """

    events: Sequence[Cost]
    groups: Sequence[Cost]
    windows: Sequence[Cost]
    keys: Sequence[Cost]
    even_keys: Sequence[Cost]
    hot: Sequence[Cost]
    held: Sequence[Held]
    workers: Sequence[Together]

    @property
    def sweeps(self) -> dict[str, tuple[Sequence[Cost], Sequence[str]]]:
        """Per title the costs of a sweep, and what each is of."""
        return {
            "events": (self.events, [f"{one.case.events:,}" for one in self.events]),
            "groups of an event": (self.groups, [f"{one.case.groups}" for one in self.groups]),
            "window": (self.windows, [_span(one) for one in self.windows]),
            "keys, as in W1": (self.keys, [f"{one.case.keys:,}" for one in self.keys]),
            "keys, all alike": (self.even_keys, [f"{one.case.keys:,}" for one in self.even_keys]),
            "share of one key": (self.hot, [f"{one.case.hot:.0%}" for one in self.hot]),
        }


def shapes(found: Found) -> list[Shape]:
    """Return what is asked of growth, beside what was found."""
    windows = [one.event_us for one in found.windows]
    return [
        linear("events_slope", [one.case.events for one in found.events], [one.all_s for one in found.events]),
        sub_linear("groups_slope", [one.case.groups for one in found.groups], [one.event_us for one in found.groups]),
        flat("window_ratio", max(windows) / min(windows)),
        flat("keys_ratio_1k_1m", _apply_ratio(found.keys)),
        flat("even_keys_ratio_1k_1m", _apply_ratio(found.even_keys)),
        flat("hot_key_ratio", found.hot[1].event_us / found.hot[0].event_us),
        small("overhead_bytes_per_row", found.held[-1].overhead),
    ]


def headline(found: Found) -> dict[str, Any]:
    """Return the figures of the last line."""
    told: dict[str, Any] = {shape.name: shape.found for shape in shapes(found)}
    told |= {
        "flush_us_per_row": {f"{one.case.keys}": round(one.flush_us, 2) for one in found.keys},
        "apply_us": {f"{one.case.keys}": round(one.steps["apply"], 2) for one in found.keys},
        "even_apply_us": {f"{one.case.keys}": round(one.steps["apply"], 2) for one in found.even_keys},
        "thaw_us_per_row": round(found.keys[0].thaw_us, 2),
        "live_overhead_bytes_per_row": round(found.held[0].overhead),
        "packed_bytes_per_row": round(found.held[-1].packed),
    }
    names = {1: "one_worker", 2: "two_workers"}
    for one in found.workers:
        told[f"{names[one.workers]}_per_s"] = round(one.events_per_s)
        told[f"{names[one.workers]}_cpu_us"] = round(one.cpu_us, 1)
    return told | {"answers_wrong": sum(one.wrong for one in found.workers)}


def shape_table(some: Sequence[Shape]) -> Table:
    """Return shapes as a table."""
    shown = _table("How cost grows", "what", ("found", "asked", ""))
    for shape in some:
        shown.add_row(shape.name, f"{shape.found:,}", shape.asked, "ok" if shape.is_met else "[red]not met[/red]")
    return shown


def cost_table(title: str, costs: Sequence[Cost], names: Sequence[str]) -> Table:
    """Return a sweep as a table: CPU microseconds per event of each step, a bar for all, and per flushed row."""
    shown = _table("CPU microseconds per event", title, ("all", "", *_STEPS.values(), "rows/event", "flush/row"))
    most = max(one.event_us for one in costs)
    for name, one in zip(names, costs, strict=True):
        shown.add_row(
            name,
            f"{one.event_us:.1f}",
            Bar(most, 0, one.event_us, width=_BAR, color="green"),
            *(f"{one.steps[step]:.2f}" for step in _STEPS),
            f"{one.rows_per_event:.2f}",
            f"{one.flush_us:.1f}",
        )
    return shown


def held_table(some: Sequence[Held]) -> Table:
    """Return what rows hold as a table."""
    shown = _table("Bytes per row of a table", "rows", ("packed, with stamps", "beside these"))
    for one in some:
        shown.add_row(f"{one.rows:,}", f"{one.packed:,.0f}", f"{one.overhead:,.0f}")
    return shown


def workers_table(some: Sequence[Together]) -> Table:
    """Return what workers gave as a table."""
    shown = _table("On Kafka and Redis", "workers", ("events/s", "", "CPU us/event", "shares", "wrong"))
    most = max(one.events_per_s for one in some)
    for one in some:
        shown.add_row(
            f"{one.workers}",
            f"{one.events_per_s:,.0f}",
            Bar(most, 0, one.events_per_s, width=_BAR, color="green"),
            f"{one.cpu_us:.1f}",
            " ".join(f"{share:.0%}" for share in one.shares),
            f"{one.wrong}",
        )
    return shown


def tables(found: Found) -> list[Table]:
    """Return everything as tables."""
    sweeps = [cost_table(title, costs, names) for title, (costs, names) in found.sweeps.items()]
    return [shape_table(shapes(found)), *sweeps, held_table(found.held), workers_table(found.workers)]


def markdown(found: Found) -> str:
    """Return shapes and sweeps in Markdown."""
    lines = ["| what | found | asked | |", "| --- | ---: | --- | --- |"]
    lines += [
        f"| `{shape.name}` | {shape.found:,} | {shape.asked} | {'ok' if shape.is_met else '**not met**'} |"
        for shape in shapes(found)
    ]
    for title, (costs, names) in found.sweeps.items():
        lines += ["", f"| {title} | all | {' | '.join(_STEPS.values())} | rows/event | flush/row |"]
        lines += [f"| ---: |{' ---: |' * (len(_STEPS) + 3)}"]
        lines += [
            f"| {name} | {one.event_us:.1f} | {' | '.join(f'{one.steps[step]:.2f}' for step in _STEPS)} "
            f"| {one.rows_per_event:.2f} | {one.flush_us:.1f} |"
            for name, one in zip(names, costs, strict=True)
        ]
    return "\n".join(lines)


def plain(found: Found) -> Mapping[str, Any]:
    """Return everything for a file of JSON."""
    return asdict(found) | {"shapes": [asdict(shape) for shape in shapes(found)]}


def _apply_ratio(costs: Sequence[Cost]) -> float:
    """Return how much dearer it is to apply an event with a million keys than with a thousand."""
    apply_us = {one.case.keys: one.steps["apply"] for one in costs}
    return apply_us[1_000_000] / apply_us[1_000]


def _span(cost: Cost) -> str:
    hours, minutes = divmod(int(cost.case.window.total_seconds()) // 60, 60)
    return f"{minutes} min" if not hours else f"{hours} h" if hours < 24 else f"{hours // 24} d"


def _table(title: str, first: str, others: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=None, header_style="bold")
    for number, name in enumerate((first, *others)):
        shown.add_column(name, justify="left" if number == 0 or name in ("", "asked") else "right", no_wrap=True)
    return shown
