"""How the command line reads its arguments: the parser, and the kinds of values."""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

REQUIRABLE = ("mean_error", "max_error", "share_within_10", "active")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


@dataclass(frozen=True)
class Requirement:
    """A quality that the result must have, such as ``mean_error<=0.02``."""

    key: str
    comparison: str
    bound: float

    def met(self, figures: dict[str, float]) -> bool:
        return _COMPARISONS[self.comparison](figures[self.key], self.bound)

    def __str__(self) -> str:
        return f"{self.key}{self.comparison}{self.bound:g}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """States the defaults, but only those that say something."""

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False or action.default == []
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Complains in one line, as all other bad input does, and does not guess at shortened options."""

    def __init__(self, **options):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        print(f"l0fast: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(2)


def requirement(text: str) -> Requirement:
    found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*", text)
    if not found or found[1] not in REQUIRABLE:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(REQUIRABLE)} as in mean_error<=0.02, got {text!r}"
        )
    return Requirement(found[1], found[2], number(found[3]))


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def multiplier(text: str) -> tuple[str, float]:
    group, separator, factor = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected GROUP=FACTOR, got {text!r}")
    return group, number(factor)


def level(text: str) -> tuple[int, float]:
    level, separator, factor = text.partition("=")
    if not separator or not level.strip().isdigit():
        raise argparse.ArgumentTypeError(f"expected LEVEL=FACTOR, got {text!r}")
    return int(level), number(factor)


def whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {value}")
        return value

    return parse
