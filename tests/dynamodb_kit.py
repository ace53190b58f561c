"""A DynamoDB Local for a whole session of tests, with a table of its own for whoever asks."""

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from aiobotocore.session import AioSession

from stores.dynamodb_calls import DynamoCalls
from stores.dynamodb_place import TablePlace
from stores.dynamodb_table import create_table

REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "s3cret"}


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of one server. One session for all: loading Amazon's models takes longer than most tests."""

    url: str
    session: AioSession = field(default_factory=AioSession)
    numbers: itertools.count = field(default_factory=itertools.count)

    def place(self, endpoint=None):
        """A place where no table is yet."""
        return TablePlace(f"rows{next(self.numbers)}", REGION, endpoint or self.url)

    def open(self, place, **options):
        """A client; whoever asked closes it."""
        return DynamoCalls(place, session=self.session, **options)

    async def calls(self, **options):
        """A client of a new table."""
        calls = self.open(self.place(), **options)
        await create_table(calls)
        return calls


@contextmanager
def open_tables(url):
    """Put credentials into the environment, where Amazon's chain finds them first."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        yield Tables(url)
