"""``make mutants``: a table of what became of each mutant; exits with 1 unless all are caught as they are said to be."""

import json
import os
import time

import typer
from rich.console import Console
from rich.table import Table

from tests.mutants.catalogue import MUTANTS, PARTS
from tests.mutants.gate import EVERYTHING, Finding, RedTreeError, try_mutants
from tests.mutants.page import PAGE, mutants_markdown


def main(only: str = "", processes: int = 0, everything: bool = True) -> None:  # noqa: FBT001, FBT002  # typer's
    """Try mutants, and write the page of the reference if all of them were tried and caught.

    Args:
        only: Try those alone whose name or file has this text.
        processes: How many at once; 0 for one per core.
        everything: Run all tests against a mutant that the named ones let pass, which takes minutes.
    """
    chosen = [mutant for mutant in MUTANTS if only in mutant.name or only in mutant.file]
    if not chosen:
        raise typer.BadParameter(f"no mutant has {only!r} in its name or file", param_hint="ONLY")
    processes = processes or os.cpu_count() or 1
    print(f"mutants: {len(chosen)} of {len(MUTANTS)}, {processes} at once; first their tests without any", flush=True)
    started, findings = time.monotonic(), list[Finding]()
    try:
        for finding in try_mutants(chosen, processes=processes, last=EVERYTHING if everything else ()):
            findings.append(finding)
            print(f"{len(findings):3} {_verdict(finding):9} {finding.mutant.name}", flush=True)
    except RedTreeError as error:
        print(error)
        raise typer.Exit(2) from None
    Console(width=160).print(_table(findings))
    for finding in findings:
        if finding.error:
            print(f"{finding.mutant.name}: {finding.error}\n")
    caught = sum(finding.is_good for finding in findings)
    if caught == len(MUTANTS):
        PAGE.write_text(mutants_markdown(PARTS))
    print(json.dumps({"mutants": len(findings), "caught": caught, "took_s": round(time.monotonic() - started)}))
    raise typer.Exit(caught < len(findings))


def _table(findings: list[Finding]) -> Table:
    table = Table("what if ...", "rule", "verdict", "caught by", "not by", "s")
    for finding in sorted(findings, key=lambda one: MUTANTS.index(one.mutant)):
        table.add_row(
            finding.mutant.name,
            finding.mutant.rule,
            _verdict(finding),
            "\n".join(map(_short, finding.caught_by)),
            "\n".join(map(_short, finding.missed_by)),
            f"{finding.took_s:.0f}",
        )
    return table


def _verdict(finding: Finding) -> str:
    if finding.error:
        return "unknown"
    if not finding.caught_by:
        return "SURVIVES"
    return "caught" if finding.is_good else "by others"


def _short(test: str) -> str:
    return test.rpartition("/")[2]


if __name__ == "__main__":
    typer.run(main)
