"""The registry: importing definitions, and telling a mistake that Python finds in them in one sentence.

What runs may still be wrong: ``core.check`` tells that.
"""

import inspect
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from types import TracebackType
from typing import Any

from app.locate import raised_in
from core import definitions, windows
from core.definitions import Registry
from core.errors import ConfigurationError, DefinitionError
from core.problems import suggestion

_FORM = "it must be package.module:NAME of a Registry"
_IMPORTED_FROM = {
    name: module for module in (windows, definitions) for name in vars(module) if not name.startswith("_")
}
_CALLED = r"(?P<called>[\w.]+?)(\.__init__)?\(\) "
_UNKNOWN = re.compile(_CALLED + r"got an unexpected keyword argument '(?P<word>\w+)'")
_MISSING = re.compile(_CALLED + r"missing \d+ required [\w-]+ arguments?: (?P<words>.+)")
_TOO_MANY = re.compile(_CALLED + r"takes .* positional arguments? but .* given")
_NOT_IN_MODULE = re.compile(r"cannot import name '(?P<word>\w+)' from '(?P<module>[\w.]+)'")


def load_registry(place: str) -> Registry:
    """Import definitions.

    Args:
        place: ``package.module:NAME``.

    Raises:
        ConfigurationError: There are none, or Python refuses them; the message has file and line, and what to write.
    """
    told = f"FRESHET_REGISTRY={place}"
    package, _, name = place.partition(":")
    if not package or not name:
        raise ConfigurationError(f"{told}: {_FORM}")
    try:
        module = import_module(package)
    except (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError, DefinitionError) as error:
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
            raise ConfigurationError(f"{told} cannot be loaded: {error}; {_FORM}") from error
        raise ConfigurationError(_mistake(error) or f"{told} cannot be loaded: {error}; {_FORM}") from error
    if not hasattr(module, name):
        registries = [other for other, value in vars(module).items() if isinstance(value, Registry)]
        raise ConfigurationError(f"{told}: {package} has no {name}; {suggestion(name, registries)}; {_FORM}")
    registry = getattr(module, name)
    if not isinstance(registry, Registry):
        raise ConfigurationError(f"{told} is a {type(registry).__name__}, not a Registry")
    return registry


def _mistake(error: Exception) -> str:
    """Return where an error was raised, what is wrong and what to do; nothing if no file of theirs had a part in it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: this is no Python: {error.msg}"
    raised = raised_in(error)
    if raised is None:
        return ""
    reason = _reason(error, raised) or f"{type(error).__name__}: {error}"
    return f"{raised.tb_frame.f_code.co_filename}:{raised.tb_lineno}: {reason}"


def _reason(error: Exception, raised: TracebackType) -> str:
    known = {**raised.tb_frame.f_builtins, **raised.tb_frame.f_globals, **raised.tb_frame.f_locals}
    text = str(error)
    if isinstance(error, NameError) and error.name:
        return f"{error.name} is not defined; {_import_or_correct(error.name, known)}"
    if isinstance(error, AttributeError) and error.name:
        return f"{text}; {suggestion(error.name, _public(dir(error.obj)))}"
    if found := _NOT_IN_MODULE.match(text):
        names = _public(vars(sys.modules[found["module"]]))
        return f"{found['module']} has no {found['word']}; {suggestion(found['word'], names)}"
    if found := _UNKNOWN.match(text):
        called, word = found["called"], found["word"]
        return f"{called} takes no {word}; {suggestion(word, _arguments(called, known))}"
    if found := _MISSING.match(text):
        return f"{found['called']} needs {found['words'].replace(chr(39), '')}; give what is missing"
    if found := _TOO_MANY.match(text):
        named = ", ".join(f"{name}=" for name in _arguments(found["called"], known, by_name=True))
        return f"{found['called']} is given too much without names; give by name {named}"
    return ""


def _import_or_correct(name: str, known: Iterable[str]) -> str:
    """Return a remedy for a name that nobody has defined.

    >>> _import_or_correct("StdDev", [])
    'import it: from core.definitions import StdDev'
    """
    if name in _IMPORTED_FROM:
        return f"import it: from {_IMPORTED_FROM[name].__name__} import {name}"
    remedy = suggestion(name, _public({*known, *_IMPORTED_FROM}))
    return remedy if remedy.startswith("did you mean") else "define it above, or import it"


def _arguments(called: str, known: dict[str, Any], *, by_name: bool = False) -> list[str]:
    """Return the arguments of what was called, all or those that must be given by name; none if it is not known."""
    first, *rest = called.split(".")
    found = known.get(first, getattr(definitions, first, None))
    for part in rest:
        found = getattr(found, part, None)
    if not callable(found):
        return []
    arguments = inspect.signature(found).parameters.values()
    return [one.name for one in arguments if not by_name or one.kind is one.KEYWORD_ONLY]


def _public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]
