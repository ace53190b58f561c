"""Fields: from an event's JSON to the values of its model's fields, or to what is wrong with it. Pure.

A source's model is pydantic's. Its twin (``agents.twin``) reads nearly every good event in a fifth of the time; what
the twin does not take, the model decides about and tells in words.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from agents.twin import decoder_of, is_plain
from core.errors import EventError

RECORD_BYTES_MAX = 1 << 20
DETAIL_MAX = 500

_MISTAKES_MAX = 50


class FieldReader:
    """Reads the events of one model.

    Attributes:
        attributes: By the name of each field the attribute under which ``read`` returns it: names of our own, because
            they stand in code that is written for the source.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.attributes = {name: f"f{number}" for number, name in enumerate(model.model_fields)}
        self._twin = decoder_of(model, self.attributes)
        self._model = _strict(model)
        self._fields: type[Any] = msgspec.defstruct("Fields", list(self.attributes.values()))

    def read(self, value: bytes | None) -> Any:
        """Return an object that has each field's value; an enum's is that of its member.

        Raises:
            EventError: ``malformed`` or ``too_large``.
        """
        if self._twin is not None and value is not None and is_plain(value):
            try:
                return self._twin(value)
            except msgspec.MsgspecError:
                # The model takes more, and knows what is wrong.
                pass
        return self._validate(value)

    def _validate(self, value: bytes | None) -> Any:
        if value is None:
            raise EventError("malformed", "the record has no value")
        if len(value) > RECORD_BYTES_MAX:
            raise EventError("too_large", f"{len(value)} bytes, the limit is {RECORD_BYTES_MAX}")
        try:
            fields = vars(self._model.model_validate_json(value))
        except ValidationError as error:
            each = tuple(
                _told(one) for one in error.errors(include_url=False, include_context=False, include_input=False)
            )
            more = f" (and {len(each) - 1} more)" if len(each) > 1 else ""
            raise EventError("malformed", f"{each[0]}{more}"[:DETAIL_MAX], each[:_MISTAKES_MAX]) from error
        # Pydantic takes a default as it is, also where an enum's value was asked for.
        values = (fields[name] for name in self.attributes)
        return self._fields(*[one.value if isinstance(one, Enum) else one for one in values])


def _told(mistake: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in mistake["loc"]) or "value"
    return f"{where}: {mistake['msg']}"[:DETAIL_MAX]


def _strict(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model with infinity and NaN refused, which JSON lacks and pydantic accepts, and enums as values."""
    return type(
        model.__name__,
        (model,),
        {"model_config": ConfigDict(allow_inf_nan=False, use_enum_values=True), "__module__": model.__module__},
    )
