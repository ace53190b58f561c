"""Requests: what a client may ask, checked at the edge, every mistake told with its field and limit. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec

from core.errors import RequestError
from core.keys import encode_key
from core.on_demand import fits
from core.values import ValueType

ENTITIES_MAX = 1_000
FEATURES_MAX = 1_000
VALUES_MAX = 200_000
NAME_CHARS_MAX = 512
BODY_BYTES_MAX = 2 << 20
DEADLINE_MS_MAX = 600_000


class FeaturesRequest(msgspec.Struct, omit_defaults=True):
    """The body of ``POST /get-online-features``, as Feast's clients send it.

    Attributes:
        entities: Columns of key values, all of one length; one row of them is one entity.
        features: ``group:feature`` references, in the order in which they will be answered.
        feature_service: Name of a service; it wins if both are given.
        full_feature_names: Whether names are answered as ``group__feature``.
    """

    entities: dict[str, list[Any]]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


_decoder = msgspec.json.Decoder(FeaturesRequest)


def parse_request(body: bytes) -> FeaturesRequest:
    """Return the request in a body.

    Raises:
        RequestError: 400, 413 or 422; it names the field.
    """
    if len(body) > BODY_BYTES_MAX:
        raise RequestError(413, f"the body has {len(body)} bytes, the limit is {BODY_BYTES_MAX}")
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(422, f"the request is not as expected: {error}{_near_miss(body)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {error}") from error
    if request.feature_service is None and not request.features:
        raise RequestError(400, f"features or feature_service: one of them is needed{_near_miss(body)}")
    _bound(request)
    return request


def _near_miss(body: bytes) -> str:
    """Name the first field that a request has not but nearly has; unknown ones are borne, Feast's clients add some."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    known = FeaturesRequest.__struct_fields__
    for name in fields:
        similar = get_close_matches(name[:NAME_CHARS_MAX], known, n=1) if name not in known else []
        if similar and similar[0] not in fields:
            return f"; there is no field {_short(name)}, did you mean {similar[0]!r}?"
    return ""


def _bound(request: FeaturesRequest) -> None:
    if not request.entities:
        raise RequestError(400, "entities: at least one key column is needed")
    first, rows = next((name, len(values)) for name, values in request.entities.items())
    for name, values in request.entities.items():
        if len(values) != rows:
            raise RequestError(
                400, f"entities: all columns must have one length; {_short(first)} has {rows} values, {_short(name)} "
                f"has {len(values)}"
            )  # fmt: skip
    if not 0 < rows <= ENTITIES_MAX:
        raise RequestError(400, f"entities: {rows} rows, 1 to {ENTITIES_MAX} are allowed in one request")
    if request.features is not None and len(request.features) > FEATURES_MAX:
        raise RequestError(400, f"features: {len(request.features)} references, the limit is {FEATURES_MAX}")
    for field, names in (("features", request.features or ()), ("feature_service", (request.feature_service or "",))):
        longest = max(map(len, names), default=0)
        # The message and the search for similar names would grow with it.
        if longest > NAME_CHARS_MAX:
            raise RequestError(400, f"{field}: a name of {longest} characters, the limit is {NAME_CHARS_MAX}")


def deadline_of(text: str) -> int:
    """Return the milliseconds that a client says it waits.

    Raises:
        RequestError: 400: that is no number of milliseconds.

    >>> deadline_of("50")
    50
    """
    # Not int alone: it takes signs and spaces, and raises an error of its own at thousands of digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(DEADLINE_MS_MAX))
    if not is_number or not 0 < int(text) <= DEADLINE_MS_MAX:
        raise RequestError(
            400, f"Freshet-Deadline-Ms: {_short(text)} is no number of milliseconds from 1 to {DEADLINE_MS_MAX}"
        )
    return int(text)


def check_size(*, rows: int, features: int) -> None:
    """Refuse an answer that would be too large.

    Raises:
        RequestError: 400: there would be more than 200,000 values in it.
    """
    if rows * features > VALUES_MAX:
        raise RequestError(
            400, f"features: {features} of {rows} rows are {rows * features} values, {VALUES_MAX} are allowed in one "
            "answer; ask for fewer rows at once"
        )  # fmt: skip


def check_request_columns(wanted: Mapping[str, ValueType], entities: Mapping[str, Sequence[Any]], *, what: str) -> None:
    """Refuse a request without the columns that an on-demand feature is computed from.

    Raises:
        RequestError: 400: a column is missing, or a value in it has another type; it says which.
    """
    for name, kind in wanted.items():
        if name not in entities:
            raise RequestError(
                400, f"entities: {what!r} is computed from the column {name!r} of the request, and there is none"
            )
        for number, value in enumerate(entities[name]):
            if not fits(value, kind):
                raise RequestError(
                    400, f"entities.{name}[{number}]: expected {kind.value}, got {type(value).__name__}, or it is "
                    "too large"
                )  # fmt: skip


def _short(name: str) -> str:
    return repr(name if len(name) <= 64 else f"{name[:64]}…")


@dataclass(frozen=True, slots=True)
class EntityKeys:
    """How the rows of a request become encoded keys of one entity.

    Attributes:
        columns: Key columns with their types, in the entity's order.
    """

    entity: str
    columns: Mapping[str, ValueType]

    def encode(self, entities: Mapping[str, list[Any]]) -> list[str]:
        """Return the encoded key of every row.

        Raises:
            RequestError: 400: a column is missing, or a value has the wrong type or is too large; it says which.
        """
        missing = [name for name in self.columns if name not in entities]
        if missing:
            raise RequestError(
                400, f"entities: the key column {missing[0]!r} of entity {self.entity!r} is missing; it is keyed by "
                f"{', '.join(self.columns)}"
            )  # fmt: skip
        for name, kind in self.columns.items():
            expected = int if kind is ValueType.INT else str
            for number, value in enumerate(entities[name]):
                if type(value) is not expected:
                    raise RequestError(
                        400, f"entities.{name}[{number}]: expected {expected.__name__}, got {type(value).__name__}; "
                        'keys are typed, 1 and "1" differ'
                    )  # fmt: skip
        rows = zip(*(entities[name] for name in self.columns), strict=True)
        return [self._encode_row(number, row) for number, row in enumerate(rows)]

    def _encode_row(self, number: int, row: tuple[Any, ...]) -> str:
        try:
            return encode_key(row)
        except ValueError as error:
            raise RequestError(400, f"entities, row {number}: the key of {self.entity!r}: {error}") from error
