"""The catalogue can be planted as it stands; `make mutants` plants it."""

import ast
import re
import shutil
from collections import Counter
from functools import cache
from types import SimpleNamespace

import pytest

from tests.mutants.catalogue import MUTANTS, PARTS
from tests.mutants.gate import RedTreeError, try_mutants
from tests.mutants.inside import WRONG_TREE, pytest_sessionstart
from tests.mutants.mutant import Mutant, StaleMutantError
from tests.mutants.page import PAGE, mutants_markdown
from tests.mutants.trees import ROOT

RULES = {f"P{number}" for number in range(1, 11)} | {"P7b", "2", "3"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_can_be_planted(mutant, tmp_path):
    """
    A bug that is not there any more is caught by nothing, and its rule is held by nobody.
    """
    broken = tmp_path / mutant.file
    broken.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / mutant.file, broken)

    mutant.apply_to(tmp_path)

    compile(broken.read_text(), mutant.file, "exec")
    assert broken.read_text() != (ROOT / mutant.file).read_text()


@pytest.mark.parametrize("text", ["", "left = right\nleft = right\n"], ids=["gone", "twice"])
def test_a_mutant_whose_text_is_not_there_once_is_told(tmp_path, text):
    """
    Code moves; a bug planted in another place than was meant may be caught for another reason.
    """
    (tmp_path / "code.py").write_text(text)

    with pytest.raises(StaleMutantError, match=r"sides are swapped: code.py has its old text \d times"):
        Mutant("sides are swapped", "P1", "code.py", "left = right", "right = left", ()).apply_to(tmp_path)


def test_every_rule_of_the_protocol_is_broken_by_some_mutant():
    """
    A rule that nobody can break by accident need not be written down; any other needs a test that notices.
    """
    assert {mutant.rule for mutant in MUTANTS} >= RULES
    assert len(MUTANTS) >= 24


def test_mutants_are_told_apart_by_their_names():
    """
    What is wrong is read from the name alone.
    """
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []


def test_the_tests_that_shall_catch_a_mutant_are_there():
    """
    A test that was renamed catches nothing under its old name; every mutant names one.
    """
    assert [mutant.name for mutant in MUTANTS if not mutant.caught_by] == []
    named = {test.partition("[")[0] for mutant in MUTANTS for test in mutant.caught_by}
    assert [test for test in sorted(named) if test.partition("::")[2] not in names_in(test.partition("::")[0])] == []


@cache
def names_in(file) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_page_of_mutants_is_what_the_catalogue_is():
    """
    Who reads it must be able to believe it: `make mutants` renews the page when all are caught.
    """
    assert PAGE.read_text() == mutants_markdown(PARTS)


def test_a_run_that_would_import_another_tree_is_refused(tmp_path):
    """
    The installed package is the tree that it was installed from: tests of the copy would pass, whatever is broken.
    """
    (tmp_path / "core").mkdir()
    (tmp_path / "core/__init__.py").touch()

    with pytest.raises(pytest.exit.Exception, match=re.escape(str(ROOT / "core"))) as refused:
        pytest_sessionstart(SimpleNamespace(config=SimpleNamespace(rootpath=tmp_path)))

    assert refused.value.returncode == WRONG_TREE


@pytest.fixture
def sums(tmp_path):
    """A tree with one module, and two tests of which only one looks at what it does."""
    (tmp_path / "tests/mutants").mkdir(parents=True)
    for name in ("__init__.py", "inside.py"):
        shutil.copyfile(ROOT / "tests/mutants" / name, tmp_path / "tests/mutants" / name)
    (tmp_path / "tests/__init__.py").touch()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    (tmp_path / "sums.py").write_text("def add(left, right):\n    return left + right\n")
    (tmp_path / "tests/test_sums.py").write_text(
        "import sums\n\ndef test_adds():\n    assert sums.add(2, 1) == 3\n\ndef test_is_there():\n    assert sums.add\n"
        "\ndef test_fails():\n    assert not sums.add\n"
    )
    return tmp_path


def test_a_survivor_is_told_from_what_is_caught(sums):
    """
    A gate that takes everything for caught is none.
    """

    def broken(name, *caught_by):
        tests = tuple(f"tests/test_sums.py::{test}" for test in caught_by)
        return Mutant(name, "P1", "sums.py", "left + right", "left - right", tests)

    mutants = (broken("caught", "test_adds"), broken("in part", "test_adds", "test_is_there"), broken("survives", "test_is_there"))  # fmt: skip

    found = {finding.mutant.name: finding for finding in try_mutants(mutants, processes=2, last=(), source=sums)}

    assert {name for name, finding in found.items() if finding.is_good} == {"caught"}
    assert found["in part"].missed_by == found["survives"].missed_by == ("tests/test_sums.py::test_is_there",)
    assert (found["survives"].caught_by, found["survives"].error) == ((), "")


def test_a_tree_that_is_red_without_a_mutant_is_refused(sums):
    """
    Whatever fails anyway would catch everything.
    """
    mutant = Mutant("red", "P1", "sums.py", "left + right", "left - right", ("tests/test_sums.py::test_fails",))

    with pytest.raises(RedTreeError, match=r"without any mutant: tests/test_sums.py::test_fails fail"):
        list(try_mutants([mutant], processes=1, last=(), source=sums))
