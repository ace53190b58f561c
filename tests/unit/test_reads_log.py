"""A sample of reads, and what ``freshet cache simulate`` makes of it."""

import asyncio
import csv
import json
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from core.errors import ConfigurationError
from core.ports import RowKey, StoredRow
from serving.answers.reads_log import FIELDS, ReadsLog
from tests.clock import ManualClock

KEYS = [RowKey(f"user#i{number}", "user_engagement@v1") for number in range(1_000)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "reads.csv"


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_of_a_key_in_the_sample_everything_is_there_and_of_others_nothing(path):
    """
    Of reads that are drawn one by one a model sees no key twice, and no copy is of any use.
    """
    log = ReadsLog(path, share=0.1, clock=ManualClock(7))
    for _ in range(3):
        log.reads(KEYS)
    log.writes([StoredRow(key, 1, bytes(300)) for key in KEYS])
    log.close()

    found = lines(path)
    keys = {line["key"] for line in found}
    assert 60 < len(keys) < 140
    assert len(found) == 4 * len(keys)
    assert {(line["op"], line["bytes"]) for line in found} == {("read", ""), ("write", "300")}
    assert {(line["time_ms"], line["group"]) for line in found} == {("7", "user_engagement")}


def test_nobody_can_be_found_in_it(path):
    """
    A file on some disk that tells who was online when is an incident.
    """
    log = ReadsLog(path, share=1, clock=ManualClock(7))
    log.reads([RowKey("user#sada@example.org", "user_engagement@v1")])
    log.close()

    assert "ada" not in path.read_text()


def test_it_ends_where_it_may_not_grow(path):
    """
    A disk that is full stops more than a log.
    """
    log = ReadsLog(path, share=1, clock=ManualClock(7), bytes_max=2_000)
    for _ in range(10):
        log.reads(KEYS[:10])
    log.close()

    assert 2_000 < path.stat().st_size < 3_000


def test_a_log_goes_on_where_it_was(path):
    """
    A worker is started again, and the sample of the week is one.
    """
    for _ in range(2):
        log = ReadsLog(path, share=1, clock=ManualClock(7))
        log.reads(KEYS[:1])
        log.close()

    assert path.read_text().splitlines()[0] == ",".join(FIELDS)
    assert len(lines(path)) == 2


def test_workers_of_one_machine_may_share_a_file(path):
    """
    A variable that is exported reaches all workers that are started: what one writes may not break the other's lines.
    """
    one, other = (ReadsLog(path, share=1, clock=ManualClock(7)) for _ in range(2))
    for _ in range(3):
        one.reads(KEYS)
        other.reads(KEYS)
    one.close()
    other.close()

    assert path.read_text().count(FIELDS[0]) == 1
    found = lines(path)
    assert len(found) == 6 * len(KEYS)
    assert {(line["time_ms"], line["op"], line["group"], len(line["key"])) for line in found} == {
        ("7", "read", "user_engagement", 16)
    }


async def test_a_line_is_in_the_file_soon(path):
    """
    Of 64 KB in memory nothing was seen for hours where one key in a hundred is sampled, and a worker that was killed
    took them along.
    """
    log = ReadsLog(path, share=1, clock=ManualClock(7), flush_s=0)
    log.reads(KEYS[:1])
    assert lines(path) == []

    with suppress(TimeoutError):
        await asyncio.wait_for(log.run(), 0.01)

    assert len(lines(path)) == 1
    log.close()


def test_that_it_is_full_is_told_once_and_again_after_a_start(path, caplog):
    """
    Whoever waits for the week's sample should know that it ended on Monday.
    """
    for start in (1, 2):
        log = ReadsLog(path, share=1, clock=ManualClock(7), bytes_max=200)
        for _ in range(10):
            log.reads(KEYS[:10])
        log.close()

        assert [record.getMessage() for record in caplog.records] == ["log of reads is full"] * start
    assert path.stat().st_size < 1_000


def test_reads_go_on_when_the_disk_is_full(caplog):
    """
    A sample that nobody needs for an answer would fail all of them, and end the worker with the first row it writes.
    """
    log = ReadsLog(Path("/dev/full"), share=1, clock=ManualClock(7))
    log.reads(KEYS)
    log.close()

    assert [record.getMessage() for record in caplog.records] == ["log of reads cannot be written"]


def test_a_file_that_cannot_be_opened_is_told_with_its_setting(tmp_path):
    """
    A start that fails with a trace tells nobody which of forty settings it was.
    """
    with pytest.raises(ConfigurationError, match=r"FRESHET_READS_LOG: .*missing.* cannot be written: No such file"):
        ReadsLog(tmp_path / "missing" / "reads.csv", share=1, clock=ManualClock(7))


def simulate(path, *options):
    return CliRunner().invoke(cli, ["cache", "simulate", str(path), *options])


def write_log(path, *rows):
    path.write_text("\n".join([",".join(FIELDS), *rows]) + "\n")
    return path


def test_a_policy_is_chosen_by_numbers(path):
    """
    Nobody can see in a definition what a copy of 64 MB is worth.
    """
    write_log(path, "1000,write,user_engagement,a,400", *(f"{2_000 + n},read,user_engagement,a," for n in range(10)))

    told = simulate(path, "--json", "--share", "0.5")

    assert told.exit_code == 0, told.output
    figures = json.loads(told.output)
    assert (figures["reads"], figures["local_share"], figures["redis_share"]) == (10, 0.9, 0.1)
    assert [point["local"] for point in figures["local_curve"]] == [0.9] * 9
    assert figures["redis_mb_peak"] == pytest.approx(500 / 0.5 / (1 << 20), abs=1e-3)


def test_what_is_told_can_be_looked_at(path):
    """
    A table of figures is read by one, a picture by all.
    """
    write_log(path, "1000,write,user_engagement,a,400", "2000,read,user_engagement,a,", "2001,read,user_engagement,a,")

    told = simulate(path).output

    assert "user_engagement" in told
    assert "50.0%" in told
    assert "% of reads answered by copies" in told
    bars = [line for line in told.splitlines() if "█" in line]
    assert [bar.split()[1] for bar in bars] == ["1", "2", "4", "8", "16", "32", "64", "128", "256"]
    assert {bar.count("█") for bar in bars} == {25}


@pytest.mark.parametrize(
    ("last_ms", "length", "warns"),
    [(3_600_000 - 1, "60 minutes", True), (3_600_000, "1.0 hours", False), (172_800_000, "2.00 days", False)],
)
def test_a_log_of_less_than_an_hour_is_warned_of(path, last_ms, length, warns):
    """
    A month was paid by what half a minute had read.
    """
    write_log(path, "0,read,user_engagement,a,", f"{last_ms},read,user_engagement,a,")

    told = " ".join(simulate(path).output.split())

    assert f"2 reads in {length}" in told
    assert (
        f"warning: the log covers {length}: what is read in a day and paid in a month is extrapolated" in told
    ) is warns
    assert len(json.loads(simulate(path, "--json").output)["warnings"]) == warns


def test_a_number_that_has_no_room_does_not_look_like_one(path):
    """
    Of 110,851 the first five figures stood in one line, and the last below.
    """
    write_log(path, *(f"{40_000 * n},read,user_engagement,a," for n in range(12_000)))
    others = [option for ttl in range(31, 38) for option in ("--policy", f"soft_ttl_s={ttl}")]

    told = simulate(path, *others).output

    line = next(line for line in told.splitlines() if "too old when" in line)
    assert all("…" in cell or cell.strip() == "11,999" for cell in line.split("│")[2:-1])


def test_policies_are_compared_with_what_is_declared(path):
    """
    Whoever doubts a policy wants to see both in one table, and to show it to others.
    """
    reads = [f"{1_000 + 40_000 * n},read,user_engagement,a," for n in range(5)]
    write_log(path, "1000,write,user_engagement,a,400", *reads)
    picture = path.with_suffix(".svg")
    others = ("--policy", "soft_ttl_s=300", "--policy", "tier=direct,write=around")

    told = simulate(path, *others, "--picture", str(picture))
    figures = json.loads(simulate(path, *others, "--json").output)

    assert "by policy" in told.output
    assert "soft 300 s" in told.output
    assert "loads per expiry" in picture.read_text().replace("&#160;", " ")
    assert (figures["local_share"], figures["copies_too_old"], figures["loads_per_expiry"]) == (0, 4, 1)
    longer, direct = figures["policies"].values()
    assert (longer["local_share"], longer["copy_age_s_p99"], longer["loads_per_expiry"]) == (0.8, 160, None)
    assert direct["record_share"] == 1


@pytest.mark.parametrize(
    "policy", ["soft_ttl=3", "soft_ttl_s=soon", "tier=moon", "write=", "", "soft_ttl_s=3,", "soft_ttl_s=1" + "0" * 400]
)
def test_a_policy_that_is_none_is_told(path, policy):
    """
    A policy that is silently another one is a month of the wrong bill.
    """
    write_log(path, "1000,read,user_engagement,a,400")

    result = simulate(path, "--policy", policy)

    assert result.exit_code == 1
    assert "write soft_ttl_s=300, hard_ttl_s=86400" in str(result.exception)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("hard_ttl_s=1", "hard_ttl is shorter than soft_ttl; give it at least soft_ttl: a copy is refreshed first"),
        ("soft_ttl_s=90000", "hard_ttl is shorter than soft_ttl"),
        ("soft_ttl_s=0", "soft_ttl is 0 s; give a duration above 0"),
    ],
)
def test_a_policy_that_cannot_be_is_told_as_the_check_tells_it(path, policy, told):
    """
    What was chosen by numbers was refused by the next start of a worker.
    """
    write_log(path, "1000,read,user_engagement,a,400")

    result = simulate(path, "--policy", policy)

    assert result.exit_code == 1
    assert f"--policy {policy}: group user_engagement: {told}" in str(result.exception)
    both = simulate(path, "--json", "--policy", "hard_ttl_s=1,soft_ttl_s=1")
    assert json.loads(both.output)["policies"].keys() == {"hard_ttl_s=1,soft_ttl_s=1"}


def test_copies_in_every_worker_can_be_compared(path):
    """
    It is the first row of the how-to's table.
    """
    write_log(path, *(f"{1_000 + n},read,user_engagement,a,400" for n in range(400)))

    told = simulate(path, "--json", "--workers", "4", "--policy", "tier=local")

    figures = json.loads(told.output)
    assert figures["local_share"] < 0.4
    assert figures["policies"]["tier=local"]["local_share"] == (400 - 4) / 400


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("soon,read,user_engagement,a,", "line 2: expected time_ms,op,group,key,bytes"),
        ("1,look,user_engagement,a,", "op is read or write, not 'look'"),
        ("1,read,nothing,a,", "no group 'nothing'"),
        ("1,read,user_engagement", "expected time_ms,op,group,key,bytes; there is no key"),
        ("1,write,user_engagement,a,5", "has no reads"),
    ],
)
def test_a_log_that_is_none_is_told_with_its_line(path, line, told):
    """
    A log of ten million lines was made by somebody's script.
    """
    write_log(path, line)

    result = simulate(path)

    assert result.exit_code == 1
    assert told in str(result.exception)


def test_logs_of_several_workers_are_one_in_the_order_of_time(tmp_path):
    """
    A read that comes before the write it followed is a copy of age -1, and a bill of the wrong month.
    """
    writes = write_log(tmp_path / "writes.csv", "5000,write,user_engagement,a,700", "1000,write,user_engagement,a,400")
    reads = write_log(tmp_path / "reads.csv", *(f"{time_ms},read,user_engagement,a," for time_ms in (6000, 2000, 3000)))

    told = simulate(writes, str(reads), "--json")

    figures = json.loads(told.output)
    assert (figures["reads"], figures["local_share"], figures["redis_share"]) == (3, 0.3333, 0.6667)
    assert (figures["copy_age_s_p50"], figures["days"]) == (1, round(5 / 86_400, 3))


def test_workers_that_begin_a_file_together_write_its_header_twice(path):
    """
    Nobody can mend a line of a log that two programs make anew at each start.
    """
    write_log(path, "1,read,user_engagement,a,", ",".join(FIELDS), "2,read,user_engagement,a,")

    assert json.loads(simulate(path, "--json").output)["reads"] == 2


@pytest.mark.parametrize("end", ["3,read,user_eng", "3,read,user_engagement,a,7", "3", "3,read,user_engagement,a,\r"])
def test_a_log_that_was_copied_while_it_grew_lacks_its_last_line(path, end):
    """
    Who looks at a log on another machine has half a line in every second copy.
    """
    write_log(path, "1,read,user_engagement,a,", "2,read,user_engagement,a,")
    with path.open("a", newline="") as file:
        file.write(end)

    assert json.loads(simulate(path, "--json").output)["reads"] == 2


@pytest.mark.parametrize("first", ["1,read,user_engagement,a,", "time_ms;op;group;key;bytes", ""])
def test_a_log_without_its_header_is_told(path, first):
    """
    The first line was taken for one, and the second was complained about.
    """
    path.write_text(f"{first}\n1,read,user_engagement,a,\n")

    result = simulate(path)

    assert result.exit_code == 1
    assert "the first line has to be the header, time_ms,op,group,key,bytes (" in str(result.exception)
