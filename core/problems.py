"""Problems of definitions, and the rules that several kinds of definition share. Pure."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

NAME_CHARS_MAX = 64
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SUGGESTIONS_MAX = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a definition that cannot work, or that hardly anyone can want.

    Attributes:
        where: The definition, for example ``group user_engagement, feature ctr``.
        reason: What is wrong.
        remedy: What would be right.
        severity: An error stops the start, a warning does not.
    """

    where: str
    reason: str
    remedy: str = field(kw_only=True)
    severity: Literal["error", "warning"] = field(default="error", kw_only=True)


def check_name(where: str, name: Any) -> list[Problem]:
    """Report a name that could not stand in a topic, a key or a request."""
    remedy = f"use small letters, digits and _, a letter first, at most {NAME_CHARS_MAX} characters"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return [Problem(where, f"the name {name!r} is not allowed", remedy=remedy)]
    if len(name) > NAME_CHARS_MAX:
        return [Problem(where, f"the name {name} has {len(name)} characters", remedy=remedy)]
    return []


def check_span(where: str, what: str, span: Any, *, most: timedelta) -> list[Problem]:
    """Report what is no duration, is not positive or is absurdly long."""
    if not isinstance(span, timedelta):
        return [
            Problem(
                where,
                f"{what} is {span!r}, no duration",
                remedy="use milliseconds(...), seconds(...), minutes(...), hours(...) or days(...)",
            )
        ]
    if span <= timedelta(0):
        return [Problem(where, f"{what} is {span.total_seconds():g} s", remedy="give a duration above 0")]
    if span > most:
        return [
            Problem(where, f"{what} is {span.total_seconds():g} s", remedy=f"give at most {most.total_seconds():g} s")
        ]
    return []


def check_whole_number(where: str, what: str, number: Any, *, least: int, most: int) -> list[Problem]:
    """Report what is no integer or out of bounds, both of which are allowed values."""
    if type(number) is int and least <= number <= most:
        return []
    return [Problem(where, f"{what} is {number!r}", remedy=f"give a whole number from {least:,} to {most:,}")]


def check_flag(where: str, what: str, flag: Any) -> list[Problem]:
    """Report what is no bool: a text is true whatever it says, and a number may be calculated with."""
    if type(flag) is bool:
        return []
    return [Problem(where, f"{what} is {flag!r}", remedy="give True or False")]


def check_listed(where: str, what: str, value: Any) -> list[Problem]:
    """Report what should be a tuple and is none, or is empty."""
    if not isinstance(value, tuple | list):
        return [Problem(where, f"{what} is no tuple", remedy=f"write {what}=(...,): a tuple of one needs its comma")]
    if not value:
        return [Problem(where, f"{what} is empty", remedy="name at least one")]
    return []


def check_clashes(kind: str, names: Sequence[Any]) -> Iterator[Problem]:
    """Report names that stand more than once."""
    for name, number in Counter(map(str, names)).items():
        if number > 1:
            yield Problem(f"{kind} {name}", f"{number} have this name", remedy="rename all but one")


def listed(value: Any) -> tuple[Any, ...]:
    """Return what was meant by a tuple whose comma was forgotten, so that its content can be checked too."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a remedy for a name that does not exist.

    >>> suggestion("clicsk", ["clicks", "likes"])
    'did you mean clicks?'
    >>> suggestion("x", ["clicks", "likes"])
    'there are clicks, likes'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    more = f" and {len(names) - _SUGGESTIONS_MAX} more" if len(names) > _SUGGESTIONS_MAX else ""
    return f"there are {', '.join(names[:_SUGGESTIONS_MAX])}{more}" if names else "there are none yet"
