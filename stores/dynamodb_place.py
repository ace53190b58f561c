"""Where a DynamoDB table is: its name, its region, and an endpoint if it is not Amazon's own.

The URL of a record says all three, so that no worker finds another table because of a variable or a profile that
somebody set for something else: ``dynamodb://freshet?region=eu-central-1``. Credentials are no part of it: they come
by Amazon's usual chain (environment, profile, role of the container or machine).
"""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import override

SCHEME = "dynamodb://"

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION = re.compile(r"[a-z]+(-[a-z]+)+-[0-9]+")


@dataclass(frozen=True, slots=True)
class TablePlace:
    """A table of DynamoDB.

    Attributes:
        endpoint: ``http(s)://host[:port]`` of the server, or None for Amazon's own in the region.
    """

    table: str
    region: str
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if not _TABLE.fullmatch(self.table):
            raise ValueError("a table's name has 3 to 255 characters out of A-Z a-z 0-9 _ . -")
        if not _REGION.fullmatch(self.region):
            raise ValueError("region must be one of AWS, like eu-central-1")
        if self.endpoint is not None:
            _refuse_endpoint(self.endpoint)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the place that ``dynamodb://<table>?region=<region>[&endpoint=<url>]`` names.

        Raises:
            ValueError: It cannot be read; the message says which part and how it should be, and quotes nothing.

        >>> str(TablePlace.parse("dynamodb://freshet?region=eu-central-1&endpoint=http://127.0.0.1:8000"))
        "dynamodb table 'freshet' in eu-central-1 at http://127.0.0.1:8000"
        """
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True)
        known = dict(given)
        if len(known) < len(given) or not known.keys() <= {"region", "endpoint"} or parts.path or parts.fragment:
            raise ValueError("after the table's name come ?region=… and perhaps &endpoint=…, nothing else")
        if "region" not in known:
            raise ValueError("it names no region; add ?region=eu-central-1 or wherever the table is")
        return cls(parts.netloc, known["region"], known.get("endpoint"))

    @override
    def __str__(self) -> str:
        """Return how messages call it."""
        return f"dynamodb table {self.table!r} in {self.region}" + (f" at {self.endpoint}" if self.endpoint else "")


def _refuse_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("endpoint must be http(s)://host[:port]")
    if parts.username is not None:
        raise ValueError(
            "endpoint holds no user or password; credentials come from AWS_* variables, a profile or a role"
        )
