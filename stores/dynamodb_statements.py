"""The statements that write a row, and which one follows when one did not decide. Pure.

``INSERT`` succeeds if there is no item, ``UPDATE`` if there is one that is older or has expired; nothing does both.
So a row begins with the likelier one, and:

- INSERT finds an item: UPDATE decides, for it compares versions.
- UPDATE finds an item that is neither older nor expired: the row is refused. The failed condition brings the item
  along, and that is how it is told from
- UPDATE finds none: INSERT decides, unless somebody else inserts just then.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from core.ports import StoredRow

EXISTS = "DuplicateItem"
CONDITION_FAILED = "ConditionalCheckFailed"


class Kind(Enum):
    """How a statement writes."""

    INSERT = "insert"
    UPDATE = "update"


class Statement(NamedTuple):
    """One way to write one row."""

    kind: Kind
    row: StoredRow


def following(statement: Statement, error: Mapping[str, Any]) -> Statement | None:
    """Return the statement that must follow, or None if this one has decided.

    Args:
        statement: What was executed.
        error: Its error: empty if the row was taken, or one of the two codes above.

    >>> from core.ports import RowKey
    >>> row = StoredRow(RowKey("user#i1", "spend@v1"), 7, b"")
    >>> following(Statement(Kind.INSERT, row), {"Code": EXISTS}).kind
    <Kind.UPDATE: 'update'>
    >>> following(Statement(Kind.UPDATE, row), {"Code": CONDITION_FAILED}).kind
    <Kind.INSERT: 'insert'>
    >>> following(Statement(Kind.UPDATE, row), {"Code": CONDITION_FAILED, "Item": {"ver": {"N": "8"}}})
    """
    if not error or error.get("Item"):
        return None
    return statement._replace(kind=Kind.UPDATE if error["Code"] == EXISTS else Kind.INSERT)


class Texts:
    """Statements for one table, in the form in which DynamoDB takes them."""

    def __init__(self, table: str) -> None:
        """Prepare the four texts; the table's name was checked and needs no escaping."""
        place = f'"{table}"'
        condition = "WHERE pk=? AND sk=? AND (ver<? OR expires_at_ms<=?)"
        self._insert = f"INSERT INTO {place} VALUE {{'pk':?,'sk':?,'ver':?,'value':?}}"
        self._insert_dying = (
            f"INSERT INTO {place} VALUE {{'pk':?,'sk':?,'ver':?,'value':?,'expires_at_ms':?,'expires_at':?}}"
        )
        self._update = f'UPDATE {place} SET ver=? SET "value"=? REMOVE expires_at_ms REMOVE expires_at {condition}'  # noqa: S608  # the name was checked
        self._update_dying = f'UPDATE {place} SET ver=? SET "value"=? SET expires_at_ms=? SET expires_at=? {condition}'  # noqa: S608  # the name was checked

    def request(self, statement: Statement, *, now_ms: int) -> dict[str, Any]:
        """Return the statement as a part of a batch.

        Args:
            statement: What shall be written, and how.
            now_ms: Items that expired by then count as none.
        """
        key, ver, value, expires_at_ms = statement.row
        place = [{"S": key.pk}, {"S": key.sk}]
        content: list[dict[str, Any]] = [{"N": str(ver)}, {"B": value}]
        if expires_at_ms is not None:
            content += [{"N": str(expires_at_ms)}, {"N": str(-(-expires_at_ms // 1000))}]
        if statement.kind is Kind.INSERT:
            text = self._insert if expires_at_ms is None else self._insert_dying
            return {"Statement": text, "Parameters": place + content}
        return {
            "Statement": self._update if expires_at_ms is None else self._update_dying,
            "Parameters": [*content, *place, {"N": str(ver)}, {"N": str(now_ms)}],
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
