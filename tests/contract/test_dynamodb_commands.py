"""``freshet tables`` against a real DynamoDB, as an operator runs it."""

import sys
from urllib.parse import urlencode

import pytest

from app.cli import main


@pytest.fixture
def tables(dynamodb_url, monkeypatch, capsys, tmp_path):
    """Run ``freshet tables``; return the exit status and what it said."""
    monkeypatch.chdir(tmp_path)
    place = urlencode({"region": "eu-central-1", "endpoint": dynamodb_url}, safe=":/")
    monkeypatch.setenv("FRESHET_RECORD", f"dynamodb://commands?{place}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")

    def run(command: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["freshet", "tables", command])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


def test_a_table_is_made_once_and_then_found_good(tables):
    """
    An operator's first three commands: what is missing, make it, is it good; and once more, because scripts do.
    """
    status, said = tables("check")
    assert status != 0
    assert "`freshet tables create`" in said

    status, said = tables("create")
    assert (status, "commands" in said) == (0, True), said
    assert tables("check")[0] == 0
    assert tables("create")[0] == 0


def test_a_record_that_is_no_table_is_told(tables, monkeypatch):
    """
    Run in the wrong shell, it must name the setting and not fail somewhere in a client.
    """
    monkeypatch.setenv("FRESHET_RECORD", "sqlite:///record.sqlite")

    status, said = tables("check")

    assert status == 2
    assert "FRESHET_RECORD names no table" in said
