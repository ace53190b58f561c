"""Models: what requests and answers of the read path look like; ``/openapi.json`` describes them.

Times are milliseconds since the epoch, UTC. Requests and answers of ``/get-online-features`` are hot, so they are read
and written without these models; a test holds both to each other.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]


class Answer(BaseModel):
    """What every model of an answer keeps to: nothing is said that is not described."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RowMistake(Answer):
    """What is wrong with one row of a push."""

    row: int = Field(description="Its number, from 0.")
    detail: str


class Mistake(Answer):
    """What is wrong: so is answered whatever has a status of 400 or more, but for what is a ``FeastMistake``."""

    detail: str = Field(description="What is wrong, where, and what to do.")
    rows: list[RowMistake] | None = Field(
        None, description="Of a push, the rows that are no events, 100 mistakes at most; none was sent."
    )


class FeastMistake(RootModel[str]):
    """A mistake that Feast's clients know by class: a JSON string that holds JSON with module, class and message.

    Only routes of Feast's contract answer so: to other clients it says the same as ``Mistake``.
    """


class OnlineFeaturesRequest(BaseModel):
    """Which features of which entities."""

    entities: dict[str, list[Any]] = Field(description="Columns of key values, all of one length; a row is an entity.")
    features: list[str] | None = Field(None, description="group:feature references, answered in this order.")
    feature_service: str | None = Field(None, description="Name of a service; it wins if both are given.")
    full_feature_names: bool = Field(default=False, description="Whether names are answered as group__feature.")
    include_feature_view_version_metadata: bool = Field(
        default=False, description="Whether to tell the groups' versions."
    )


class PushRequest(BaseModel):
    """Events for a source."""

    push_source_name: str = Field(description="Topic of the source.")
    df: dict[str, list[Any]] = Field(description="Columns of the events' fields, all of one length; a row is an event.")
    to: str = Field("online", description="online; there is no other store to push to.")


class WriteRequest(BaseModel):
    """Events for the only source of a group, as Feast's SDK writes them."""

    feature_view_name: str = Field(description="A group with one source, or a source's topic.")
    df: dict[str, list[Any]] = Field(description="Columns of the events' fields, all of one length; a row is an event.")


class GroupVersion(Answer):
    """A group and the number of its version."""

    name: str
    version: int


class OnlineFeaturesMetadata(Answer):
    """What holds for the whole answer."""

    feature_names: list[str] = Field(description="Key columns first, then features; one per result.")
    instant_ms: int = Field(description="The instant that every value holds for.")
    min_as_of_ms: int = Field(description="Up to when every row of the answer is known to be complete.")
    feature_view_metadata: list[GroupVersion] | None = None
    unread: list[str] | None = Field(
        None, description="Groups of which rows could not be read: their values are INVALID, and null or defaults."
    )
    defaults: list[str] | None = Field(
        None, description="Those of them whose features' defaults are served, as INVALID, because their policy says so."
    )
    old: list[str] | None = Field(
        None, description="Groups of which copies older than soft_ttl are served, because the record fails."
    )


class OnlineFeaturesResult(Answer):
    """One column: a key column or a feature, with one value per entity."""

    values: list[Any]
    statuses: list[Status]
    event_timestamps: list[str] = Field(description="Newest event of each row, RFC 3339; the epoch if there is none.")


class OnlineFeaturesAnswer(Answer):
    """Feature values in Feast's shape."""

    metadata: OnlineFeaturesMetadata
    results: list[OnlineFeaturesResult]


class Readiness(Answer):
    """Whether reads work."""

    ready: bool


class RestoreFigures(Answer):
    """How far a worker is with restoring the partitions that it was given."""

    what: str = Field(description="rows, or event ids.")
    records: int = Field(description="Records read so far.")
    records_per_s: float
    left_s: float = Field(description="Seconds that the rest will take at this rate.")


class IngestReadiness(Answer):
    """Whether events are taken in; the figures are told to those alone who may see them."""

    ready: bool
    role: str | None = Field(None, description="What the worker does.")
    partitions: int | None = Field(None, description="Partitions that are owned, restored and read.")
    lag: int | None = Field(None, description="Records written and not yet durable here.")
    commit_age_s: float | None = Field(None, description="Age of the last commit, seconds.")
    rows: int | None = Field(None, description="Rows in the tables of this worker.")
    cache_owed: int | None = Field(None, description="Rows that the cache has not taken yet.")
    restore: RestoreFigures | None = Field(None, description="The restore under way, if there is one.")


class Definition(Answer):
    """What a feature means."""

    group: str
    feature: str
    entity: str
    text: str = Field(description="What is computed, as one would write it.")
    type: str
    unit: str
    default: Any = Field(description="What is served where the value would be null.")
    window: str = Field(description="5m, 1h, 7d, all.")
    sources: list[str] = Field(description="Topics that it is computed from.")
    owner: str
    description: str
    note: str = Field(description="What users must know about repeated events, or empty.")


class Version(Answer):
    """Which version of the group's definition is served."""

    number: int
    fingerprint: str = Field(description="Hash of the meaning, 16 hexadecimal digits.")


class Part(Answer):
    """A state that takes part: one for an aggregation, numerator and denominator for a ratio.

    A change has its subject over both of its windows, but in tiles over the shorter one alone.
    """

    name: str
    state: Any = Field(description="The state as it is kept; bytes of a sketch are told by their number.")
    result: Any = Field(description="What the state alone would be served as.")
    items: int | None = Field(
        description="How many values the state lists or counts one by one, null if none; at most 50 are shown."
    )


class TileShown(Answer):
    """One slice of time. A feature of all time has a single tile without begin and end."""

    start_ms: int | None
    end_ms: int | None
    in_window: bool
    parts: list[Part]


class WindowShown(Answer):
    """Which tiles are in the window at the instant; all are 0 or null for all time."""

    size_ms: int
    tile_ms: int
    start_ms: int | None = Field(description="Start of the oldest tile that is in the window; it is in whole.")
    end_ms: int | None = Field(description="End of the youngest tile, which the instant falls into.")


class RowShown(Answer):
    """The stored row that the value was read from.

    The newest event's own place in its source is kept in the changelog alone; what a row knows is the last packed
    record that was applied to it, and the newest event time among all of them.
    """

    name: str = Field(description="The group's version under which the row is stored.")
    newest_event_ms: int | None = Field(description="Newest event time that was applied.")
    as_of_ms: int = Field(description="Newest record timestamp that the row has seen.")
    topic: str = Field(description="The repartition topic.")
    partition: int
    offset: int = Field(description="Of the last packed record that was applied to the row.")
    epoch: int = Field(description="Raised when topic or changelog are made anew.")
    valid_from_ms: int = Field(description="The instant that the finished values were written for.")
    valid_until_ms: int | None = Field(
        description="Until when the finished values hold: a tile enters or leaves a window then. Tiles are merged for "
        "reads after it; null for never."
    )
    expires_at_ms: int | None = Field(description="When the last window is empty, or null for never.")
    read_from: Literal["head", "tiles"] = Field(description="Whether finished values were served or tiles merged.")


class Explanation(Answer):
    """Why one served number is what it is."""

    feature: str = Field(description="group:feature.")
    key: dict[str, int | str]
    value: Any
    status: Status
    why: str = Field(description="Why this status, in a sentence.")
    instant_ms: int = Field(description="The instant that the value holds for.")
    age_ms: int | None = Field(description="Instant less newest event time, or null without a row.")
    tier: str | None = Field(
        description="local, or the store that the row came from; without a row, local where that is known, else null."
    )
    copy_age_ms: int | None = Field(description="How long ago this process read the row from a store.")
    as_of_ms: int = Field(description="Up to when the row is known to be complete, by its own or its partition's word.")
    definition: Definition
    version: Version
    window: WindowShown
    row: RowShown | None
    tiles: list[TileShown] = Field(description="Oldest first; only those in which something happened.")
    merged: list[Part] = Field(
        description="The states of all tiles in the window, merged; of a change those of both windows."
    )


class Input(Answer):
    """What an on-demand feature was given."""

    name: str = Field(description="The function's parameter.")
    feature: str | None = Field(description="group:feature, or null where it is a column of the request.")
    value: Any
    status: Status


class OnDemandExplanation(Answer):
    """Why a number that is made on demand is what it is."""

    feature: str = Field(description="group:feature, or source:value.")
    key: dict[str, Any] = Field(description="Key columns, and what else the request has.")
    value: Any
    status: Status
    why: str = Field(description="Why this status, in a sentence.")
    instant_ms: int = Field(description="The instant that value and inputs hold for.")
    definition: Definition
    inputs: list[Input]


class AnyExplanation(RootModel[Explanation | OnDemandExplanation]):
    """Of a stored feature, or of one that is made on demand."""
