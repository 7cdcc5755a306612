"""The filter language: what it means, and one clear message for all that is not in it."""

import pytest

from l0fast.calibration.frames import Condition, FilterError, parse_filter


def conditions(text):
    return [(c.column, c.operator, *c.values) for c in parse_filter(text)]


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("", []),
        ("   ", []),
        ("a == 1", [("a", "==", 1)]),
        ("a==-1.5e3", [("a", "==", -1500.0)]),
        ("a.b != 'x'", [("a.b", "!=", "x")]),
        ("a == 'it''s'", [("a", "==", "it's")]),
        ('a == "say ""so"" and b"', [("a", "==", 'say "so" and b')]),
        ("a in (1)", [("a", "in", 1)]),
        ("a in ('x', 'y,z')", [("a", "in", "x", "y,z")]),
        ("a NOT IN (1,2)", [("a", "not in", 1, 2)]),
        ("1 <= a < 2", [("a", ">=", 1), ("a", "<", 2)]),
        ("2 >= a > 1", [("a", "<=", 2), ("a", ">", 1)]),
        ("3 < a", [("a", ">", 3)]),
        ("a > 3 AND b <= 4 and c == true", [("a", ">", 3), ("b", "<=", 4), ("c", "==", 1)]),
        ("`a and b` == false", [("a and b", "==", 0)]),
        ("größe >= 0", [("größe", ">=", 0)]),
        ("android == 1 and india == 2", [("android", "==", 1), ("india", "==", 2)]),
        ("a == 123456789012345678", [("a", "==", 123456789012345678)]),
    ],
)
def test_meaning(text, meaning):
    assert conditions(text) == meaning


@pytest.mark.parametrize(
    "text, says",
    [
        ("a", "expected an operator (== != < <= > >= in) after the column at position 2, got the end"),
        ("a = 1", "at position 3, got '='; equality is written =="),
        ("a == b", "expected a number or a quoted text ('b') at position 6, got 'b'"),
        ("a == ", "expected a number or a quoted text at position 6, got the end"),
        ("a == 'x", "the ' at position 6 is never closed"),
        ("a == 1 or b == 2", "expected and, or the end at position 8, got 'or'; there is no or"),
        ("a == 1 | b == 2", "at position 8, got '|'; there is no or"),
        ("a == 1 & b == 2", "at position 8, got '&'; conditions are joined by and"),
        ("not a == 1", "expected a column at position 1, got 'not'; not is only known in"),
        ("a == 1 and", "expected a column at position 11, got the end"),
        ("and a == 1", "expected a column at position 1, got 'and'"),
        ("a in 1", "expected ( at position 6, got '1'"),
        ("a in ()", "expected a number or a quoted text at position 7, got ')'"),
        ("a in (1, 2", "expected a comma or ) at position 11, got the end"),
        ("a in (1 2)", "expected a comma or ) at position 9, got '2'"),
        ("a not 1", "expected in after not at position 7, got '1'"),
        ("a < 'x'", "expected a number at position 5, got \"'x'\""),
        ("1 < a > 0", "expected < or <= for the other end of the range at position 7, got '>'"),
        ("1 == a", "expected < <= > or >= after the number at position 3, got '=='"),
        ("2 <= a < 1", "no number lies in the range at position 6"),
        ("0 < a < b", "expected a number at position 9, got 'b'"),
        ("a < 1 < 2", "expected and, or the end (a range is written 1 <= column < 2) at position 7"),
        ("a == 1_000", "at position 6, got '1_000'"),
        ("a == 12abc", "at position 6, got '12abc'"),
        ("a == nan", "expected a number or a quoted text ('nan') at position 6"),
        ("a; b", "at position 2, got ';'"),
        ("__import__('os')", "expected an operator (== != < <= > >= in) after the column at position 11, got '('"),
        ("a == (1)", "expected a number or a quoted text at position 6, got '('"),
        ("`` == 1", "the ` at position 1 is never closed"),
    ],
)
def test_bad_input(text, says):
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    message = str(caught.value)
    assert message.startswith("filter: ") and says in message and "\n" not in message, message


def test_not_a_text():
    with pytest.raises(TypeError, match=r"filter: expected a text, got int \(3\)"):
        parse_filter(3)


def test_a_long_filter_is_no_recursion():
    text = " and ".join(f"a == {k}" for k in range(20_000))
    assert len(parse_filter(text)) == 20_000


def test_conditions_are_equal_by_meaning_and_print_as_written():
    assert parse_filter("a == 1")[0] == parse_filter("  a==1")[0] == Condition("a", "==", (1,))
    for text in ("a == 1", "a in ('x', 'it''s')", "a not in (1, 2.5)"):
        assert str(parse_filter(text)[0]) == text
