"""The torture's ledger: what was acknowledged lies there, and an acknowledgement may not say where."""

from tests.chaos.ledger import Line, read_ledger
from tests.chaos.oracle import Oracle


def test_an_acknowledgement_without_a_place_is_one(tmp_path):
    """
    A broker that gets a batch twice may only say that it has it; a torture ended at such a line after 50 minutes.
    """
    ledger = tmp_path / "ledger"
    ledger.write_text("taps 1 7 99 good\ntaps 1 None 98 good\n")

    assert [line for line, _ in read_ledger(ledger)] == [
        Line("taps", 1, 7, 99, "good"),
        Line("taps", 1, None, 98, "good"),
    ]


def test_a_record_of_the_ledger_is_looked_for_where_it_was_acknowledged():
    """
    An acknowledged event that is in no log is lost, whoever has lost it.
    """
    oracle = Oracle()
    oracle.source_record(("taps", 1, 7), 0, b"123456789")
    crc = 0xCBF43926

    assert oracle.check_ledger("taps", 1, 7, crc)
    assert oracle.check_ledger("taps", 1, None, crc)
    assert not oracle.check_ledger("taps", 1, 8, crc)
    assert not oracle.check_ledger("taps", 0, None, crc)
    assert not oracle.check_ledger("taps", 1, None, crc + 1)
