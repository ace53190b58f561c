import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.choice import When, when
from core.definitions import Sum
from core.errors import DefinitionError, EventError
from core.expressions import Binary, Column, Explode, Expr, IsIn, IsNull, Literal, Logic, Not, col, explode
from core.keys import INT64_MAX, INT64_MIN
from core.values import ValueType

MODEST = settings(max_examples=150, derandomize=True, deadline=None)
COLUMNS = {
    "n": ValueType.INT,
    "m": ValueType.INT,
    "x": ValueType.FLOAT,
    "y": ValueType.FLOAT,
    "kind": ValueType.STR,
    "p": ValueType.BOOL,
    "q": ValueType.BOOL,
    "items": ValueType.LIST,
}
TRUE = (True,)
INT64 = st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([INT64_MIN, INT64_MAX, -1, 0, 1])


def value_of(expression: Expr, **fields):
    expression.type_in(COLUMNS)
    return expression.compile(COLUMNS)(fields)


def conditions() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from([col("p"), col("q"), col("n") > 1, col("x") <= 0.5, col("kind") == "a|b"])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
            st.builds(lambda a: a.is_null(), inner),
            st.builds(lambda a: a.is_in(*TRUE), inner),
            st.builds(lambda a, b, c: when(a).then(b).otherwise(c), inner, inner, inner),
            st.builds(lambda a, b: when(a).then(b), inner, inner),
        ),
        max_leaves=5,
    )


def shape(part) -> object:
    """The tree itself, node by node, without the text that is under test."""
    match part:
        case Column():
            return ("column", part.name)
        case Literal():
            return (type(part.value), part.value)
        case Binary() | Logic():
            return (type(part), part.sign, shape(part.left), shape(part.right))
        case Not():
            return (Not, shape(part.condition))
        case IsNull():
            return (IsNull, shape(part.value))
        case IsIn():
            return (IsIn, shape(part.value), part.choices)
        case When():
            return (When, shape(part.condition), shape(part.value), shape(part.other))
        case _:
            return part


def test_null_in_null_out():
    """
    A missing number that became a zero would lower every mean silently.
    """
    for expression in (col("n") + 1, 1 - col("n"), col("n") * col("m"), col("n") / 2, col("n") > 0, col("n").is_in(1)):
        assert value_of(expression, n=None, m=1) is None


def test_division_by_zero_is_null():
    """
    An event with a duration of 0 is an ordinary event; it must not stop a partition.
    """
    assert value_of(col("n") / col("m"), n=1, m=0) is None
    assert value_of(col("x") / col("y"), x=1.0, y=-0.0) is None
    assert value_of(col("n") / col("m"), n=7, m=2) == 3.5


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_null(number):
    """
    One NaN in a sum makes it NaN for as long as the window lasts.
    """
    assert value_of(col("x"), x=number) is None
    assert value_of(col("x") + 1, x=number) is None


def test_a_float_that_leaves_the_doubles_is_null():
    """
    Infinity has no JSON.
    """
    assert value_of(col("x") * col("y"), x=1e308, y=10.0) is None


@given(INT64, INT64, st.sampled_from("+-*"))
@MODEST
def test_integers_are_exact_or_an_overflow(n, m, sign):
    """
    A number that wrapped round in one place and not in another is a wrong number in one of them.
    """
    exact = {"+": n + m, "-": n - m, "*": n * m}[sign]
    evaluate = Binary(sign, col("n"), col("m")).compile(COLUMNS)

    if INT64_MIN <= exact <= INT64_MAX:
        assert evaluate({"n": n, "m": m}) == exact
    else:
        with pytest.raises(EventError, match="overflow"):
            evaluate({"n": n, "m": m})


def test_an_integer_beyond_64_bits_does_not_get_in():
    """
    JSON has integers of any length; stores and batch have 64 bits.
    """
    for number in (INT64_MAX + 1, INT64_MIN - 1, 10**5000):
        with pytest.raises(EventError, match="overflow"):
            value_of(col("n"), n=number)


def test_an_overflow_is_found_on_whichever_side_it_is():
    """
    Whether an event is buried must not depend on the order in which its author wrote a condition.
    """
    overflow = col("n") * col("n") > 0
    for condition in (overflow | col("p"), col("p") | overflow, overflow & ~col("p"), ~col("p") & overflow):
        with pytest.raises(EventError, match="overflow"):
            value_of(condition, n=INT64_MAX, p=True)


def test_integers_and_floats_mix_as_floats():
    """
    A comparison that is exact in Python and rounded in batch would filter different events.
    """
    assert (col("n") + col("x")).type_in(COLUMNS) is ValueType.FLOAT
    assert value_of(col("n") == col("x"), n=2**53 + 1, x=float(2**53)) is True
    assert value_of(col("n") + 0.5, n=1) == 1.5


def test_conditions_follow_three_valued_logic():
    """
    The batch engine decides as SQL does; a stream that decides otherwise counts other events.
    """
    unknown_counts_half = {True: 1.0, None: 0.5, False: 0.0}
    back = {number: value for value, number in unknown_counts_half.items()}

    for p, q in itertools.product((True, False, None), repeat=2):
        numbers = (unknown_counts_half[p], unknown_counts_half[q])
        assert value_of(col("p") & col("q"), p=p, q=q) is back[min(numbers)]
        assert value_of(col("p") | col("q"), p=p, q=q) is back[max(numbers)]
        assert value_of(~col("p"), p=p) is back[1 - numbers[0]]


def test_is_null_is_never_null():
    """
    It is the one question that may be asked about a missing value.
    """
    assert value_of(col("kind").is_null(), kind=None) is True
    assert value_of(col("kind").is_null(), kind="") is False


def test_is_in_compares_values_of_one_type():
    """
    True is 1 to Python; to a user of features it is not.
    """
    assert value_of(col("kind").is_in("like", "follow"), kind="follow") is True
    assert value_of(col("kind").is_in("like"), kind="click") is False
    with pytest.raises(DefinitionError, match="True is no int"):
        col("n").is_in(*TRUE).type_in(COLUMNS)


def test_when_takes_the_other_value_where_the_condition_is_null():
    """
    A null condition is false everywhere, here too.
    """
    choice = when(col("p")).then(col("n")).otherwise(0)

    assert [value_of(choice, p=p, n=5) for p in (True, False, None)] == [5, 0, 0]


def test_when_without_otherwise_is_null():
    """
    A mean over ``when(...).then(...)`` must not count the events that it leaves out.
    """
    assert value_of(when(col("p")).then(1), p=False) is None


def test_when_with_an_int_and_a_float_is_a_float():
    """
    A column that is sometimes an int has another type in batch.
    """
    choice = when(col("p")).then(col("n")).otherwise(0.5)

    assert choice.type_in(COLUMNS) is ValueType.FLOAT
    assert type(value_of(choice, p=True, n=5)) is float


def test_when_evaluates_only_the_branch_that_it_takes():
    """
    An overflow in a value that nobody uses is no reason to bury an event.
    """
    choice = when(col("p")).then(col("n") * col("n")).otherwise(0)

    assert value_of(choice, p=False, n=INT64_MAX) == 0


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (col("wrong"), "unknown field 'wrong'"),
        (col("kind") + 1, "numbers are needed"),
        (col("p") + col("p"), "numbers are needed"),
        (col("kind") > 1, "cannot compare str with int"),
        (col("items") == col("items"), "cannot compare list with list"),
        (col("n") & col("p"), "n is no condition"),
        (~col("n"), "n is no condition"),
        (when(col("n")).then(1), "n is no condition"),
        (when("kind").then(1), "'kind' is no condition"),
        (when(col("p")), "lacks its then"),
        (when(col("p")).then(1).otherwise("one"), "both must have one type"),
        (col("kind").is_in(), "nothing to choose from"),
        (col("items").is_in(), "nothing to choose from"),
        (col("kind").is_in(["a", "b"]), "no constant of a type"),
        (col("kind") == None, "no constant of a type"),  # noqa: E711  # builds a tree
        (col("n") + 2**63, "64 bits"),
        (col("x") + math.nan, "no finite number"),
    ],
)
def test_a_wrong_tree_is_refused_before_anything_runs(expression, words):
    """
    Without this the first event would find the mistake, at night.
    """
    with pytest.raises(DefinitionError, match=words):
        expression.type_in(COLUMNS)


def test_a_condition_has_no_truth_of_its_own():
    """
    ``a and b`` would silently be ``b``.
    """
    with pytest.raises(DefinitionError, match="combine conditions with &"):
        bool(col("p") == col("q"))


@given(conditions())
@MODEST
def test_the_text_of_a_tree_reads_back_as_the_same_tree(tree):
    """
    Texts name columns between the roles and enter the fingerprint. Once ``(~p).is_null()`` and ``~(p.is_null())`` had
    the same one, so two conditions of opposite meaning shared a column.
    """
    names = {"when": when} | {name: col(name) for name in COLUMNS}

    again = eval(tree.text, {"__builtins__": {}}, names)  # noqa: S307  # the text is our own

    assert shape(again) == shape(tree)


def test_texts_are_frozen():
    """
    A change of these texts gives every group that uses them a new version: a change of these texts moves data.
    """
    tree = when(~(col("kind") == "like") & col("n").is_in(1, 2)).then(1 - col("x") / 1000).otherwise(0)

    assert tree.text == "when(((~(kind == 'like')) & n.is_in(1, 2))).then((1 - (x / 1000))).otherwise(0)"
    assert (col("n").is_null() | (col("m") >= -1)).text == "(n.is_null() | (m >= -1))"
    assert Sum(col("n") * 2).text == "Sum((n * 2))"


@given(conditions())
@MODEST
def test_a_tree_says_which_fields_it_reads(tree):
    """
    A field that is not asked for is not there when the tree is evaluated.
    """
    fields = dict.fromkeys(tree.columns())

    assert value_of(tree, **fields) in (True, False, None)


def test_explode_takes_a_plain_field():
    """
    The keys of an event are read from the event, not computed.
    """
    assert explode(col("items")) == Explode("items")
    for wrong in (col("n") + 1, "items"):
        with pytest.raises(DefinitionError, match="explode takes a field"):
            explode(wrong)
