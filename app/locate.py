"""Locating definitions: the file and line in which a name of a definition stands, for messages about it."""

import sys
import traceback
from pathlib import Path


def locate_names(package: str, names: list[str]) -> str:
    """Return ``file:line`` of the last name, found behind the ones before it in one file; else the package's file.

    Args:
        package: Name of the package or module that holds the registry.
        names: As they stand in the definitions, outermost first: a group, then its feature.
    """
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == package or name.startswith(f"{package}.")):
            line = _find(Path(file), names)
            if line:
                return f"{file}:{line}"
    return str(getattr(sys.modules.get(package), "__file__", None) or package)


def locate_error(error: BaseException) -> str:
    """Return `` at file:line`` of where an error was raised outside of our own rooms, or nothing."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    own = Path(__file__).parents[1]
    rooms = tuple(str(own / room) for room in ("app", "core"))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).exists()]
    theirs = [frame for frame in frames if not frame.filename.startswith(rooms) and "importlib" not in frame.filename]
    return f" at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""


def _find(file: Path, names: list[str]) -> int:
    """Return the line of the last name, or 0; every name is looked for behind the one before."""
    lines = file.read_text(errors="replace").splitlines()
    at = 0
    for name in names:
        found = [number for number in range(at, len(lines)) if f'"{name}"' in lines[number]]
        if not found:
            return 0
        at = found[0]
    return at + 1 if names else 0
