"""Merging tiles: from states to served values at an instant. Used by the writer's head and by every later read."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from core.aggregations import Aggregation
from core.code import Code
from core.plans import GroupPlan, Resolution, WindowPlan
from core.rows import Tail, Tile
from core.windows import NEVER_MS, Window

_PLANS_MAX = 10_000


class Finished(NamedTuple):
    """Values of a row at an instant.

    Attributes:
        values: In the order of the features' names.
        valid_until_ms: First instant at which a tile enters or leaves one of the windows.
    """

    values: list[Any]
    valid_until_ms: int


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a writer needs to pack a row.

    Attributes:
        expires_at_ms: First instant at which all windows are empty: the row's own if they are already, or never.
    """

    tail: Tail
    values: list[Any]
    valid_until_ms: int
    expires_at_ms: int


def finish(plan: GroupPlan, tail: Tail, instant_ms: int) -> Finished:
    """Merge the tiles that are in each window at an instant.

    The window online (SEMANTICS: Time): the tiles with floor(t - size) <= start <= t, as they stand.
    """
    finished: Finished = _finisher(plan)(tail, instant_ms)
    return finished


def finish_live(plan: GroupPlan, tiles: Sequence[dict[int, Tile]], instant_ms: int) -> Head:
    """Do the same with tiles that still change, given per resolution by their index; past ones are dropped there."""
    head: Head = _live_finisher(plan)(tiles, instant_ms)
    return head


@lru_cache(maxsize=_PLANS_MAX)
def _finisher(plan: GroupPlan) -> Callable[..., Any]:
    """Write ``finish`` out for a plan: a loop over the tail that knows every window, slot and output."""
    code = Code("def finish(tail, instant_ms):")
    _write_start(code, plan)
    with code.block("for tile_ms, tiles in tail:"):
        for number, resolution in enumerate(plan.resolutions):
            with code.block(f"{'if' if number == 0 else 'elif'} tile_ms == {resolution.tile_ms}:"):
                _write_bounds(code, resolution)
                _write_windows(code, plan, number)
    _write_changes(code, plan)
    code.add(f"return {code.name('Finished', Finished)}(values, valid_until_ms)")
    return code.compile()


@lru_cache(maxsize=_PLANS_MAX)
def _live_finisher(plan: GroupPlan) -> Callable[..., Any]:
    """Write ``finish_live`` out for a plan."""
    code = Code("def finish_live(live, instant_ms):")
    _write_start(code, plan)
    code.add("tail, expires_at_ms = [], instant_ms")
    for number, resolution in enumerate(plan.resolutions):
        code.add(f"by_index = live[{number}]")
        with code.block("if by_index:"):
            code.add(
                "tiles = [by_index[index] for index in sorted(by_index)] if len(by_index) > 1 else [*by_index.values()]"
            )
            if resolution.tile_ms:
                drop, part = code.name("drop", _drop_past), code.name("resolution", resolution)
                oldest = f"(instant_ms - {resolution.size_max_ms}) // {resolution.tile_ms} - 1"
                code.add(f"if tiles[0][0] < {oldest}:\n    tiles = {drop}({part}, by_index, instant_ms)")
            with code.block("if tiles:"):
                _write_packing(code, resolution)
                code.add(f"tail.append(({resolution.tile_ms}, tiles))")
                _write_bounds(code, resolution)
                ends = f"(newest + 1) * {resolution.tile_ms} + {resolution.size_max_ms}"
                code.add(f"ends_ms = {ends if resolution.tile_ms else NEVER_MS}")
                code.add("if ends_ms > expires_at_ms:\n    expires_at_ms = ends_ms")
                _write_windows(code, plan, number)
    _write_changes(code, plan)
    code.add(f"return {code.name('Head', Head)}(tail, values, valid_until_ms, expires_at_ms)")
    return code.compile()


def _drop_past(resolution: Resolution, by_index: dict[int, Tile], instant_ms: int) -> list[Tile]:
    """Drop the tiles that no window will need any more; return the others, oldest first."""
    oldest = resolution.oldest_kept(instant_ms)
    for index in [index for index in by_index if index < oldest]:
        del by_index[index]
    return [by_index[index] for index in sorted(by_index)]


def _write_packing(code: Code, resolution: Resolution) -> None:
    """Pack the states that msgpack cannot carry as they are.

    They stay packed until something is added to them, which is cheap because most tiles of a row are past; and the
    values are made of what a reader will find, so they are what it computes.
    """
    slots = [(place, slot.aggregation) for place, slot in enumerate(resolution.slots)]
    packing = [(place, aggregation) for place, aggregation in slots if _has_own(aggregation, "pack")]
    if packing:
        with code.block("for tile in tiles:"):
            for place, aggregation in packing:
                code.add(f"tile[{place + 1}] = {code.name('pack', aggregation.pack)}(tile[{place + 1}])")


def _has_own(aggregation: Aggregation, method: str) -> bool:
    """Whether an aggregation has a method of its own in the place of the port's."""
    return getattr(type(aggregation), method) is not getattr(Aggregation, method)


def _write_start(code: Code, plan: GroupPlan) -> None:
    code.add(f"values = {code.name('empty', list(plan.empty))}.copy()")
    code.add(f"valid_until_ms = {NEVER_MS}")


def _write_bounds(code: Code, resolution: Resolution) -> None:
    """Look once at what every window of a resolution is compared with."""
    if resolution.tile_ms:
        code.add(f"oldest, newest, last = tiles[0][0], tiles[-1][0], instant_ms // {resolution.tile_ms}")


def _write_windows(code: Code, plan: GroupPlan, resolution: int) -> None:
    for part in plan.windows:
        if part.resolution == resolution:
            _write_window(code, plan, part)


def _write_window(code: Code, plan: GroupPlan, part: WindowPlan) -> None:
    window = part.window
    if window.tile_ms == 0:
        code.add("chosen = tiles")
    else:
        code.add(f"first = (instant_ms - {window.size_ms}) // {window.tile_ms}")
        with code.block("if oldest >= first and newest <= last:"):
            code.add(f"chosen = tiles\nchanges_ms = (oldest + 1) * {window.tile_ms} + {window.size_ms}")
        with code.block("else:"):
            code.add(
                f"chosen, changes_ms = {code.name('select', _select)}({code.name('window', window)}, tiles, instant_ms)"
            )
        code.add("if changes_ms < valid_until_ms:\n    valid_until_ms = changes_ms")
    with code.block("if chosen:"):
        _write_merge(code, part, [slot.aggregation for slot in plan.resolutions[part.resolution].slots])


def _write_merge(code: Code, part: WindowPlan, aggregations: list[Aggregation]) -> None:
    """Merge the chosen tiles slot by slot, then put the results where the values are served from."""
    places = range(len(aggregations))
    lefts = ", ".join(f"s{place}" if place in part.slots else "_" for place in places)
    at_once = [place for place in part.slots if _has_own(aggregations[place], "merge_all")]
    in_turn = [place for place in part.slots if place not in at_once]
    rights = ", ".join(f"x{place}" if place in in_turn else "_" for place in places)
    code.add(f"_, {lefts} = chosen[0]")
    with code.block("if len(chosen) > 1:"):
        if in_turn:
            with code.block(f"for _, {rights} in chosen[1:]:"):
                for place in in_turn:
                    merge = code.name("merge", aggregations[place].merge)
                    code.add(aggregations[place].merge_code(f"s{place}", f"x{place}", merge))
        for place in at_once:
            merge_all = code.name("merge_all", aggregations[place].merge_all)
            code.add(f"s{place} = {merge_all}([tile[{place + 1}] for tile in chosen])")
    for place in part.slots:
        if _has_own(aggregations[place], "result"):
            code.add(f"s{place} = {code.name('result', aggregations[place].result)}(s{place})")
    for output, slot, below, default in part.outputs:
        if below is not None and aggregations[slot].never_null and aggregations[below].never_null:
            code.add(f"values[{output}] = s{slot} / s{below} if s{below} else {code.name('default', default)}")
            continue
        if below is not None:
            code.add(f"value = s{slot} / s{below} if s{slot} is not None and s{below} else None")
        elif aggregations[slot].never_null:
            code.add(f"values[{output}] = s{slot}")
            continue
        else:
            code.add(f"value = s{slot}")
        _write_value(code, output, default)


def _write_changes(code: Code, plan: GroupPlan) -> None:
    """Compare values of the windows, which all have theirs by now, whether there were tiles or not."""
    for place, now, usual, times, default in plan.changes:
        code.add(f"now, usual = values[{now}], values[{usual}]")
        code.add(f"value = now / usual * {times} - 1 if usual and now is not None else None")
        _write_value(code, place, default)


def _write_value(code: Code, place: int, default: Any) -> None:
    """Serve ``value``, or the default instead of null."""
    # As in expressions, what has left the doubles is null: a sum of 1e308 and 1e308, 1e300 over 1e-300.
    is_null = f"value is None or value.__class__ is float and not {code.name('isfinite', math.isfinite)}(value)"
    code.add(f"values[{place}] = {code.name('default', default)} if {is_null} else value")


def _select(window: Window, tiles: list[Tile], instant_ms: int) -> tuple[list[Tile], int]:
    """Return the tiles that are in a window that not all of them are in, and the instant at which others will be."""
    first, last = window.first_tile(instant_ms), window.last_tile(instant_ms)
    chosen = [tile for tile in tiles if first <= tile[0] <= last]
    changes_ms = window.leaves_ms(chosen[0][0]) if chosen else NEVER_MS
    if tiles[-1][0] > last:
        # An event may be up to ten seconds ahead of its record, so its tile may begin after this instant.
        changes_ms = min(changes_ms, min(tile[0] for tile in tiles if tile[0] > last) * window.tile_ms)
    return chosen, changes_ms
