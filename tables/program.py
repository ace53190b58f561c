"""What an event does to the rows of its key, written out per entity and source: one function for all groups.

The function walks over a pack once. Per update and group it finds the row, asks the row's stamp, and adds to every
tile that a feature needs; nothing in it is looked up that the definitions say already. It does not decide about
duplicates: verdicts come from ``tables.apply``.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.aggregations import State
from core.code import Code
from core.dedupe import Verdict
from core.plans import GroupPlan, Resolution, Step

_PROGRAMS_MAX = 10_000
_COMMON = ("key", "offset", "record_ms", "time_ms", "event_id", "verdict")


@dataclass(frozen=True, slots=True)
class Program:
    """What a pack of one source does to the rows of one entity.

    Attributes:
        columns: Names of the columns that the pack must have, sorted.
        run: ``run(groups, pack, columns, verdicts, ver)``: groups are the tables of the plans, columns the pack's by
            name. It returns how many updates were applied, duplicates, conflicts among these, and replays.
    """

    columns: tuple[str, ...]
    run: Callable[..., tuple[int, int, int, int]]


@lru_cache(maxsize=_PROGRAMS_MAX)
def compile_program(plans: tuple[GroupPlan, ...], source: str) -> Program:
    """Return the program of a source for the groups of one entity."""
    code = Code("def run(groups, pack, columns, verdicts, ver):")
    feeding = [(number, plan) for number, plan in enumerate(plans) if plan.steps.get(source)]
    needed = _columns(plans, source)
    names = {text: f"c{place}" for place, text in enumerate(needed)}
    code.add("origin, partition = pack.origin, pack.partition\napplied = duplicates = conflicts = replays = 0")
    for number, _ in feeding:
        code.add(f"rows{number}, dirty{number}, live{number} = groups[{number}].parts()")
    columns = "".join(f", columns[{code.name('text', text)}]" for text in names)
    common = "pack.keys, pack.offsets, pack.record_times, pack.event_times, pack.event_ids, verdicts"
    with code.block(f"for {', '.join((*_COMMON, *names.values()))} in zip({common}{columns}, strict=True):"):
        code.add(f"is_first, is_fresh = verdict is {code.name('FIRST', Verdict.FIRST)}, False")
        for tile_ms in sorted({part.tile_ms for _, plan in feeding for part in plan.resolutions if part.tile_ms}):
            code.add(f"i{tile_ms} = time_ms // {tile_ms}")
        for number, plan in feeding:
            _write_group(code, number, plan, plan.steps[source], names)
        _write_count(code)
    code.add("return applied, duplicates, conflicts, replays")
    return Program(needed, code.compile())


def _columns(plans: Sequence[GroupPlan], source: str) -> tuple[str, ...]:
    steps = [step for plan in plans for step in plan.steps.get(source, ())]
    return tuple(sorted({text for step in steps for text in (step.value, step.where) if text is not None}))


def _write_group(code: Code, number: int, plan: GroupPlan, steps: Sequence[Step], names: dict[str, str]) -> None:
    code.add(f"row = rows{number}.get(key)")
    code.add(f"if row is None:\n    row = live{number}(key)")
    code.add(f"dirty{number}[key] = row\nstamps = row.stamps.get(origin)")
    code.add("if stamps is None:\n    stamps = row.stamps[origin] = {}")
    with code.block("if offset > stamps.get(partition, -1):"):
        code.add("stamps[partition] = offset\nrow.ver = ver\nis_fresh = True")
        code.add("if record_ms > row.as_of_ms:\n    row.as_of_ms = record_ms")
        with code.block("if is_first:"):
            code.add("if time_ms > row.event_time_ms:\n    row.event_time_ms = time_ms")
            _write_steps(code, plan, steps, names)


def _write_steps(code: Code, plan: GroupPlan, steps: Sequence[Step], names: dict[str, str]) -> None:
    """Steps with one condition stand together; a tile is made only where something is added to it."""
    guarded: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        guarded[_guard(step, names)].append(step)
    code.add(f"{''.join(f't{place}, ' for place in range(len(plan.resolutions)))} = row.tiles")
    fetched = {place for step in guarded.get("", ()) for place, _ in step.places}
    for place in sorted(fetched):
        _write_fetch(code, place, plan.resolutions[place])
    for guard, several in sorted(guarded.items()):
        if not guard:
            _write_adds(code, several, names)
            continue
        with code.block(f"if {guard}:"):
            for place in sorted({place for step in several for place, _ in step.places} - fetched):
                _write_fetch(code, place, plan.resolutions[place])
            _write_adds(code, several, names)


def _guard(step: Step, names: dict[str, str]) -> str:
    """Return the condition under which a step adds something, or nothing for always."""
    conditions = [names[step.where]] if step.where is not None else []
    if step.value is not None and not step.aggregation.takes_null:
        conditions.append(f"{names[step.value]} is not None")
    return " and ".join(conditions)


def _write_fetch(code: Code, place: int, resolution: Resolution) -> None:
    """Find the event's tile, or make it: its index, then a state per slot."""
    index = f"i{resolution.tile_ms}" if resolution.tile_ms else "0"
    zeros = [slot.aggregation.zero() for slot in resolution.slots]
    states = [
        code.name("nothing", zero) if _never_changes(zero) else f"{code.name('zero', slot.aggregation.zero)}()"
        for slot, zero in zip(resolution.slots, zeros, strict=True)
    ]
    code.add(f"s{place} = t{place}.get({index})")
    code.add(f"if s{place} is None:\n    s{place} = t{place}[{index}] = [{index}, {', '.join(states)}]")


def _never_changes(state: State) -> bool:
    """Whether all tiles may begin with one and the same state; any other is made anew for each of them."""
    if isinstance(state, tuple):
        return all(_never_changes(part) for part in state)
    return state is None or isinstance(state, bool | int | float | str | bytes)


def _write_adds(code: Code, steps: Sequence[Step], names: dict[str, str]) -> None:
    for step in steps:
        value = names[step.value] if step.value is not None else "None"
        add = code.name("add", step.aggregation.add)
        for place, slot in step.places:
            code.add(step.aggregation.add_code(f"s{place}[{slot + 1}]", value, add))


def _write_count(code: Code) -> None:
    code.add("if not is_fresh:\n    replays += 1\nelif is_first:\n    applied += 1")
    with code.block("else:"):
        code.add(f"duplicates += 1\nconflicts += verdict is {code.name('CONFLICT', Verdict.CONFLICT)}")
