"""Twins: from a pydantic model a msgspec decoder that takes a part of what the model takes, and makes the same of it.

Pydantic is the language in which events are defined; checking one with it costs several times what msgspec asks. What
the twin takes, the model would take too, with equal values; whatever the twin refuses, the model decides about. So the
twin may be strict, and it need not say what is wrong.

It is made from pydantic's core schema, which says everything that pydantic does to a value, a user's own validators
included. What is not known here, word by word, has no twin, and each of its events is checked by the model.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel

_SAME_MEANING = frozenset(("type", "metadata", "ref", "strict", "serialization", "title"))
"""Words that change nothing of what is taken: both take JSON's own types alone, or the twin takes less."""

_KNOWN = {
    "definitions": {"schema", "definitions"},
    "model": {"cls", "config", "custom_init", "root_model", "schema", "frozen"},
    "model-fields": {"fields", "model_name", "computed_fields"},
    "model-field": {"schema", "validation_alias", "serialization_alias", "frozen"},
    "config": {"extra_fields_behavior", "allow_inf_nan"},
    "default": {"schema", "default", "default_factory", "default_factory_takes_data", "copy_default"},
    "definition-ref": {"schema_ref"},
    "nullable": {"schema"},
    "int": {"gt", "ge", "lt", "le"},
    "float": {"gt", "ge", "lt", "le"},
    "str": {"min_length", "max_length"},
    "bool": set(),
    "any": set(),
    "literal": {"expected"},
    "enum": {"cls", "members", "sub_type"},
    "list": {"items_schema", "min_length", "max_length"},
}
_PLAIN: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "any": Any}

_SIZE_MAX, _SMALL, _OPENINGS_MAX = 4096, 300, 150


class _NoTwinError(Exception):
    """The model has something that is not known here."""


def decoder_of(model: type[BaseModel], attributes: Mapping[str, str]) -> Callable[[bytes], Any] | None:
    """Return a function from JSON to an object with the model's fields, or None if the model has no twin.

    It raises ``msgspec.MsgspecError`` for what only the model can decide, and is for values that ``is_plain`` lets
    through. ``attributes`` says, by field, under which attribute of the object it shall be found.
    """
    try:
        return msgspec.json.Decoder(_Twin(model).struct(attributes)).decode
    except (_NoTwinError, RecursionError, TypeError, ValueError):
        # There are bounds and constants that msgspec does not take, and types that hold themselves.
        return None


def is_plain(value: bytes) -> bool:
    """Whether both parsers take the parts of a value that no field asks for.

    Msgspec passes over them more quickly than pydantic, which refuses bad UTF-8 everywhere, numbers of more than 4,300
    digits and nesting deeper than 200.
    """
    size = len(value)
    if size > _SMALL and (size > _SIZE_MAX or value.count(b"[") + value.count(b"{") > _OPENINGS_MAX):
        return False
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Twin:
    def __init__(self, model: type[BaseModel]) -> None:
        self._schema: Any = model.__pydantic_core_schema__
        self._definitions: dict[str, Any] = {}

    def struct(self, attributes: Mapping[str, str]) -> type[msgspec.Struct]:
        schema = self._schema
        if schema["type"] == "definitions":
            self._definitions = {one["ref"]: one for one in _known(schema, "definitions")["definitions"]}
            schema = schema["schema"]
        model = _known(schema, "model")
        extra = _known(model.get("config", {}), "config").get("extra_fields_behavior", "ignore")
        if model.get("custom_init") or model.get("root_model") or extra != "ignore":
            raise _NoTwinError
        fields = _known(model["schema"], "model-fields")["fields"]
        names: dict[str, str] = {}
        members = []
        for name, field in fields.items():
            _known(field, "model-field")
            alias = field.get("validation_alias", name)
            if not isinstance(alias, str):
                raise _NoTwinError
            names[attributes[name]] = alias
            members.append((attributes[name], *self._member(field["schema"])))
        return msgspec.defstruct("Fields", members, kw_only=True, gc=False, rename=names)

    def _member(self, schema: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a field's type and, if it has one, its default."""
        if schema["type"] != "default":
            return (self._type(schema),)
        kind = self._type(_known(schema, "default")["schema"])
        if "default" not in schema:
            if schema.get("default_factory_takes_data"):
                raise _NoTwinError
            return kind, msgspec.field(default_factory=schema["default_factory"])
        default = schema["default"]
        if isinstance(default, Enum):
            default = default.value
        # Nobody changes a value, so one may be the default of many events.
        return kind, msgspec.field(default_factory=lambda: default)

    def _type(self, schema: Mapping[str, Any]) -> Any:
        kind = schema["type"]
        words = _known(schema, kind)
        if kind == "definition-ref":
            return self._type(self._definitions[words["schema_ref"]])
        if kind == "nullable":
            return self._type(words["schema"]) | None
        if kind == "literal":
            return _literal(words["expected"])
        if kind == "enum":
            return _literal([member.value for member in words["members"]])
        bounds = {word: value for word, value in words.items() if word in _KNOWN[kind] and word != "items_schema"}
        plain = list[self._type(words["items_schema"])] if kind == "list" else _PLAIN.get(kind)  # type: ignore[misc]  # made at run time
        if plain is None:
            raise _NoTwinError
        return Annotated[plain, msgspec.Meta(**bounds)] if bounds else plain


def _known(schema: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a part of a schema of which every word is known."""
    if kind not in _KNOWN or not schema.keys() <= _KNOWN[kind] | _SAME_MEANING or schema.get("type", kind) != kind:
        raise _NoTwinError
    return schema


def _literal(values: list[Any]) -> Any:
    if not values or not all(type(value) in (str, int) for value in values):
        raise _NoTwinError
    return Literal[tuple(values)]
