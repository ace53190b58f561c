"""The events of the short-video domain: what producers may send, and what is buried instead.

Strict: a number in quotes is not a number. Unknown fields are ignored, so that producers may add some first. All
integers fit in 64 bits.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]
EventId = Annotated[str, Field(min_length=1, max_length=128)]


class VideoEvent(BaseModel):
    """What every event of the domain says."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    event_id: EventId = Field(description="Names the event; a repetition of it has the same id.")
    time_ms: Natural = Field(description="When it happened, milliseconds since the epoch, UTC.")
    user_id: Natural = Field(description="Who watched.")
    video_id: Natural = Field(description="Which video.")
    tab: Natural = Field(description="Number of the app's tab that showed the video.")


class Impression(VideoEvent):
    """A video was shown to a user."""

    watch_ms: Natural = Field(description="How long it played, milliseconds; 0 if it was scrolled past.")
    duration_ms: Natural = Field(description="How long the video is, milliseconds; 0 if that is unknown.")


class Click(VideoEvent):
    """A user opened a video."""


class Conversion(VideoEvent):
    """A user did more than open the video."""

    kind: Literal["long_view", "like", "follow", "forward"] = Field(
        description="What the user did: watch long, like, follow the author, forward to a friend."
    )
