from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, PositiveInt

from core.models import columns_of, is_event_time, list_item_type
from core.values import ValueType

Natural = Annotated[int, Field(ge=0)]


class Tab(StrEnum):
    HOME = "home"


class Event(BaseModel):
    bare: Natural
    optional: Natural | None = None
    items: list[PositiveInt] = []
    optional_items: Annotated[list[Natural], Field(max_length=9)] | None = None
    tab: Tab = Tab.HOME
    kind: Literal["a", "b"] = "a"
    either: int | str = 0
    at: datetime
    aware: AwareDatetime
    maybe_at: datetime | None = None


def test_constraints_do_not_hide_a_type():
    """
    Pydantic strips the outermost constraint only: ``Natural | None`` was an unknown field once, and the items of a
    ``list[PositiveInt]`` could not be keys.
    """
    columns = columns_of(Event)

    assert columns["bare"] is columns["optional"] is ValueType.INT
    assert columns["items"] is columns["optional_items"] is ValueType.LIST
    assert list_item_type(Event, "items") is list_item_type(Event, "optional_items") is ValueType.INT


def test_enumerations_have_the_type_of_their_values():
    """
    A condition on an enumeration is the most usual one.
    """
    assert columns_of(Event)["tab"] is columns_of(Event)["kind"] is ValueType.STR


def test_what_has_no_single_type_is_no_column():
    """
    A sum over a field that is sometimes text would fail on some event, some day.
    """
    assert columns_of(Event).keys().isdisjoint({"either", "at", "aware", "maybe_at"})


def test_an_event_time_is_never_null():
    """
    ``AwareDatetime`` is the natural type of an event time and was refused once.
    """
    annotations = {name: info.annotation for name, info in Event.model_fields.items()}

    assert [name for name, annotation in annotations.items() if is_event_time(annotation)] == ["bare", "at", "aware"]
