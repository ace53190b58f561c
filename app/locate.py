"""Locating definitions: the file and line in which a name of a definition stands, for messages about it."""

import sys
import sysconfig
from pathlib import Path
from types import TracebackType


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


def raised_in(error: BaseException) -> TracebackType | None:
    """Return where in the definitions an error was raised, or None if nowhere in them."""
    own = Path(__file__).parents[1]
    others = (
        *(str(own / room) for room in ("app", "core")),
        *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
    )
    found, raised = None, error.__traceback__
    while raised is not None:
        file = raised.tb_frame.f_code.co_filename
        if not file.startswith((*others, "<")):
            found = raised
        raised = raised.tb_next
    return found


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
