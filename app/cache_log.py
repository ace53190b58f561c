"""Logs of reads, of one worker or of several, as one log in the order of time."""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

from core.errors import ConfigurationError
from serving.answers.reads_log import FIELDS
from serving.cache_model import Access

_ROW_BYTES = 500

_Line: TypeAlias = tuple[int, str, str, bool, int | None]
"""Time, group, key, whether it is a write, and the row's bytes where they are told."""


def read_logs(paths: Sequence[Path], groups: Collection[str]) -> list[Access]:
    """Return what was read and written, oldest first; a read is as large as the row's last write that is known.

    Lines may stand in any order: workers that share a file write theirs by turns of some seconds.

    Args:
        paths: CSV files; a last line without its end is left out, for a log may have been copied while it grew.
        groups: Names that may stand there.

    Raises:
        ConfigurationError: One cannot be read, or has a line that is none; or there are no reads at all.
    """
    lines = sorted(chain.from_iterable(_lines(path, groups) for path in paths), key=itemgetter(0))
    if all(is_write for _, _, _, is_write, _ in lines):
        told = ", ".join(map(str, paths))
        raise ConfigurationError(f"{told} has no reads: each line is {','.join(FIELDS)}, op is read or write")
    return list(_sized(lines))


def _sized(lines: Iterable[_Line]) -> Iterator[Access]:
    known: dict[tuple[str, str], int] = {}
    for time_ms, group, key, is_write, told in lines:
        known[group, key] = size = told if told is not None else known.get((group, key), _ROW_BYTES)
        yield Access(time_ms, group, key, is_write, size)


def _lines(path: Path, groups: Collection[str]) -> Iterator[_Line]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader((line for line in file if line.endswith("\n")), restval="")
            first = reader.fieldnames or ()
            if not set(FIELDS[:-1]) <= set(first):
                raise ConfigurationError(
                    f"{path}: the first line has to be the header, {','.join(FIELDS)} (bytes may be left out), "
                    f"not {','.join(first)!r}"
                )
            for line in reader:
                # Two workers that begin a file together both write its header.
                if line["time_ms"] != "time_ms":
                    yield _line(line, groups, where=f"{path}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _line(line: Mapping[str, str], groups: Collection[str], *, where: str) -> _Line:
    op, group, key, size = (line.get(name, "") for name in FIELDS[1:])
    try:
        time_ms, told = int(line["time_ms"]), int(size) if size else None
    except ValueError:
        raise ConfigurationError(f"{where}: expected {','.join(FIELDS)}; time_ms and bytes are numbers") from None
    if op not in ("read", "write"):
        raise ConfigurationError(f"{where}: op is read or write, not {op!r}")
    if group not in groups:
        raise ConfigurationError(f"{where}: no group {group!r}; FRESHET_REGISTRY names the definitions")
    if not key:
        raise ConfigurationError(f"{where}: expected {','.join(FIELDS)}; there is no key")
    return time_ms, group, key, op == "write", told
