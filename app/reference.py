"""The pages of the reference that are written from the code itself: settings and aggregations."""

from dataclasses import fields

from pydantic_core import PydanticUndefined
from rich.table import Table
from rich.text import Text

from app.settings import Settings
from core.aggregations import AGGREGATIONS, Aggregation
from core.aggregations.port import NUMBER_BYTES
from core.expressions import col

_HEAD = """# Settings

Every knob of a worker, read from the environment. This page is written by `freshet settings`; a test holds it.

| variable | default | meaning |
| --- | --- | --- |
"""

_AGGREGATIONS_HEAD = """# Aggregations

What a feature can be made of. This page is written by `freshet aggregations`; a test holds it. Nulls are skipped,
except by `Latest`. Bytes are those of one packed state of integers at its largest; a row keeps one per tile, mostly 15
per window and up to 27 if its length divides badly; `freshet check` adds them up. Beside these, `Ratio` divides two
features of a group and `Change` compares the rate of a count or sum with that in a longer window.

| aggregation | meaning | takes | exactness | bytes at most |
| --- | --- | --- | --- | --- |
"""


def settings_markdown() -> str:
    """Return the page ``docs/reference/settings.md``."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is PydanticUndefined else _text(field.default)
        lines.append(f"| `FRESHET_{name.upper()}` | {default} | {field.description} |\n")
    return _HEAD + "".join(lines)


def _text(default: object) -> str:
    shown = default.get_secret_value() if hasattr(default, "get_secret_value") else default
    return "" if shown in (None, "") else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"


def aggregations_markdown() -> str:
    """Return the page ``docs/reference/aggregations.md``."""
    return _AGGREGATIONS_HEAD + "".join(_aggregation_row(kind) for kind in AGGREGATIONS)


def page_table(markdown: str) -> Table:
    """Return the table of a page for a terminal; what does not fit goes on in the next line."""
    names, _, *rows = ([cell.strip() for cell in line.strip("|\n").split(" | ")] for line in _rows(markdown))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(names):
        table.add_column(name, overflow="fold", no_wrap=place == 0 and len(names) < 5)
    for row in rows:
        table.add_row(*(Text(cell.replace("`", "")) for cell in row))
    return table


def _rows(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def _aggregation_row(kind: type[Aggregation]) -> str:
    made = kind(col("x"))
    chosen = "".join(f", {item.name}={getattr(made, item.name)!r}" for item in fields(kind) if item.name != "value")
    meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    takes = ", ".join(sorted(value_type.value for value_type in kind.accepts))
    size = made.worst_state_bytes(NUMBER_BYTES)
    return f"| `{kind.__name__}(x{chosen})` | {meaning} | {takes} | {kind.exactness} | {size:,} |\n"
