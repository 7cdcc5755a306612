"""The filter of a target: a small language of its own, parsed here and never handed to an interpreter.

filter     = condition { "and" condition }
condition  = column ("==" | "!=" | "<" | "<=" | ">" | ">=") value
           | column ["not"] "in" "(" value { "," value } ")"
           | number ("<" | "<=" | ">" | ">=") column [ the same direction, number ]
column     = letters, digits, "_" and "."  |  `anything but a backtick`
value      = number | 'text' | "text" | true | false       (a quote within text is written twice)
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<quoted>`[^`]+`)
    |(?P<word>[^\W\d][\w.]*)
    |(?P<operator>==|!=|<=|>=|<|>)
    |(?P<mark>[(),])""",
    re.VERBOSE,
)
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_KEYWORDS = ("and", "in", "not", "or", "true", "false")
_HINTS = {
    "=": "; equality is written ==",
    "or": "; there is no or: use in (...), or a target for each part",
    "&": "; conditions are joined by and",
    "|": "; there is no or: use in (...), or a target for each part",
    "not": "; not is only known in: column not in (...)",
}


class FilterError(ValueError):
    """A filter that cannot be read. The message names what was expected, what came, and the position, from 1."""


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with constants; equal if it means the same, wherever it stands."""

    column: str
    operator: str
    """``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in`` or ``not in``."""
    values: tuple[int | float | str, ...]
    """One value, or those of ``in``. true and false are 1 and 0."""
    position: int | None = field(default=None, compare=False)
    """Where the column stands in the text, from 1; None where there is no text."""

    def __str__(self) -> str:
        shown = ", ".join(_literal(value) for value in self.values)
        return f"{self.column} {self.operator} " + (f"({shown})" if self.operator.endswith("in") else shown)


def _literal(value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else f"{value!r}"


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter, all of which must hold; none for an empty text.

    Raises:
        TypeError: not a text.
        FilterError: not in the language.
    """
    if not isinstance(text, str):
        raise TypeError(f"filter: expected a text, got {type(text).__name__} ({text!r})")
    return _Parser(text).filter() if text.strip() else ()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """One token after the other, without recursion: a long filter is as good as a short one."""

    def __init__(self, text: str):
        self.text, self.tokens, self.next = text, [], 0
        place = 0
        while place < len(text):
            if text[place].isspace():
                place += 1
                continue
            found = _TOKEN.match(text, place)
            if not found:
                self._stop_at(place)
            self.tokens.append(_Token(found.lastgroup, found[0], place + 1))
            place = found.end()
        self.tokens.append(_Token("end", "", len(text) + 1))

    def _stop_at(self, place: int):
        if self.text[place] in "'\"`":
            raise FilterError(f"filter: the {self.text[place]} at position {place + 1} is never closed: {self.text}")
        came = re.match(r"[-+]?[\w.]+|.", self.text[place:])[0]
        self._fail("a column, a number, a quoted text or an operator", _Token("", came, place + 1))

    def _fail(self, expected: str, token: _Token | None = None):
        token = token or self.peek
        came = repr(token.text) if token.text else "the end"
        hint = _HINTS.get(token.text.lower(), "")
        raise FilterError(f"filter: expected {expected} at position {token.position}, got {came}{hint}: {self.text}")

    @property
    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self) -> _Token:
        token = self.peek
        self.next += 1
        return token

    def is_word(self, word: str) -> bool:
        return self.peek.kind == "word" and self.peek.text.lower() == word

    def filter(self) -> tuple[Condition, ...]:
        conditions = self.condition()
        while self.peek.kind != "end":
            if not self.is_word("and"):
                self._fail("and, or the end")
            self.take()
            conditions += self.condition()
        return tuple(conditions)

    def condition(self) -> list[Condition]:
        if self.peek.kind == "number":
            return self.number_first()
        column, position = self.column()
        if self.is_word("in") or self.is_word("not"):
            return [Condition(column, *self.members(), position)]
        if self.peek.kind != "operator":
            self._fail("an operator (== != < <= > >= in) after the column")
        operator = self.take().text
        value = self.number() if operator in _TURNED else self.value()
        if self.peek.kind == "operator":
            self._fail("and, or the end (a range is written 1 <= column < 2)")
        return [Condition(column, operator, (value,), position)]

    def number_first(self) -> list[Condition]:
        low = self.number()
        if self.peek.text not in _TURNED:
            self._fail("< <= > or >= after the number")
        first = self.take().text
        column, position = self.column()
        conditions = [Condition(column, _TURNED[first], (low,), position)]
        if self.peek.kind == "operator":
            if self.peek.text not in _TURNED or self.peek.text[0] != first[0]:
                self._fail(f"{first[0]} or {first[0]}= for the other end of the range")
            operator = self.take().text
            high = self.number()
            if (high < low) if first[0] == "<" else (high > low):
                raise FilterError(f"filter: no number lies in the range at position {position}: {self.text}")
            conditions.append(Condition(column, operator, (high,), position))
        return conditions

    def members(self) -> tuple[str, tuple]:
        operator = "in"
        if self.is_word("not"):
            self.take()
            operator = "not in"
            if not self.is_word("in"):
                self._fail("in after not")
        self.take()
        self.mark("(")
        values = [self.value()]
        while self.peek.text == ",":
            self.take()
            values.append(self.value())
        self.mark(")")
        return operator, tuple(values)

    def mark(self, mark: str) -> None:
        if self.peek.kind != "mark" or self.peek.text != mark:
            self._fail(f"{'a comma or ' if mark == ')' else ''}{mark}")
        self.take()

    def column(self) -> tuple[str, int]:
        token = self.peek
        if token.kind == "quoted":
            return self.take().text[1:-1], token.position
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            self._fail("a column")
        return self.take().text, token.position

    def number(self) -> int | float:
        if self.peek.kind != "number":
            self._fail("a number")
        return _number(self.take().text)

    def value(self) -> int | float | str:
        token = self.peek
        if token.kind == "text":
            self.take()
            return token.text[1:-1].replace(token.text[0] * 2, token.text[0])
        if self.is_word("true") or self.is_word("false"):
            return int(self.take().text.lower() == "true")
        if token.kind == "word":
            self._fail(f"a number or a quoted text ('{token.text}')")
        if token.kind != "number":
            self._fail("a number or a quoted text")
        return _number(self.take().text)


def _number(text: str) -> int | float:
    """Whole numbers that fit an int64 stay exact."""
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    return float(text)
