"""The start's check of the record: a table that cannot work stops the worker before it takes any event."""

from core.ports import Store
from stores.dynamodb import DynamoStore
from stores.dynamodb_table import check_table


async def check_record(record: Store) -> None:
    """Make sure that the record can hold rows; SQLite and memory were checked when they were opened.

    Raises:
        ConfigurationError: It cannot: no such table, another key, no valid credentials, another region, no answer. The
            message says what, where, and what to do.
    """
    if isinstance(record, DynamoStore):
        await check_table(record.calls)
