"""Prints, as Markdown, each public name of l0-python beside l0fast's: arguments, attributes, methods, keys, results.

    python benchmarks/api_table.py [--differences]

A difference that REASONS does not explain is marked, and the exit code is then 1.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from api_cases import CASES, FUNCTIONS, Call, Case, mixed_model
from common import l0fast
from torch import Tensor, nn

SUBMODULES = l0fast.compat.SUBMODULES

_SIZES_FIRST = "any number of sizes, HardConcrete(4, 3, 2); l0-python's names and positions still work"
REASONS: dict[str, str] = {
    f"l0.distributions.HardConcrete.{name}": _SIZES_FIRST
    for name in ("input_dim", "output_dim", "temperature", "stretch", "init_mean")
} | {
    "l0.penalties.compute_l2_penalty(gates per weight)": "l0-python adds the squares of weight_gates.qz_logits",
    "l0.penalties.get_sparsity_stats(L0DepthwiseConv2d)": "total_params is an int; l0-python divides and gets a float",
}
"""What differs on purpose: the row's key, and why."""


@dataclass(frozen=True)
class Row:
    """One thing of l0-python and what l0fast has in its place ('' for nothing)."""

    place: str
    kind: str
    name: str
    theirs: str
    ours: str
    same: bool

    @property
    def key(self) -> str:
        return f"{self.place}.{self.name}"


def public_names(module: ModuleType) -> list[str]:
    """What a user can import from it that is l0-python's own."""
    own = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    return [n for n in own if getattr(vars(module)[n], "__module__", "").split(".")[0] == "l0"]


# -- names and signatures ---------------------------------------------------------------------------------------------


def parameter_rows(place: str, theirs, ours) -> Iterator[Row]:
    """One row for each argument: the same name, place, default and kind. What l0fast adds must come after."""
    try:
        expected = [p for p in inspect.signature(theirs).parameters.values() if p.name != "self"]
    except ValueError:  # a class without a signature of its own
        return
    found = [p for p in inspect.signature(ours).parameters.values() if p.name != "self"]
    for k, parameter in enumerate(expected):
        other = next((p for p in found if p.name == parameter.name), None)
        same = other is not None and found.index(other) == k
        same = same and (other.default, other.kind) == (parameter.default, parameter.kind)
        yield Row(place, "argument", parameter.name, shown(parameter), shown(other) if other else "", same)


def shown(parameter: inspect.Parameter) -> str:
    return str(parameter.replace(annotation=inspect.Parameter.empty))


def name_rows(package: str) -> Iterator[Row]:
    """Names of a module, the arguments of its functions and classes, and the methods of its classes."""
    theirs, ours = (importlib.import_module(root + package) for root in ("l0", "l0fast"))
    for name in public_names(theirs):
        expected, found = getattr(theirs, name), getattr(ours, name, None)
        what = "class" if inspect.isclass(expected) else "function"
        yield Row(theirs.__name__, what, name, what, "" if found is None else what, found is not None)
        if found is None or expected.__module__ != theirs.__name__:
            continue
        place = f"{theirs.__name__}.{name}"
        yield from parameter_rows(place, expected, found)
        if inspect.isclass(expected):
            yield from member_rows(place, expected, found)


def member_rows(place: str, expected: type, found: type) -> Iterator[Row]:
    for name, member in own_members(expected).items():
        other = getattr(found, name, None)
        if inspect.isfunction(member):
            yield Row(place, "method", name, f"{name}()", "" if other is None else f"{name}()", callable(other))
            if callable(other):
                yield from parameter_rows(f"{place}.{name}", member, other)
        else:
            yield Row(place, "constant", name, repr(member), "" if other is None else repr(other), member == other)


def own_members(cls: type) -> dict[str, Any]:
    """Public methods and constants of the class and its bases in l0-python."""
    bases = [base for base in reversed(cls.__mro__) if base.__module__.split(".")[0] == "l0"]
    return {name: m for base in bases for name, m in vars(base).items() if not name.startswith("_")}


# -- objects ----------------------------------------------------------------------------------------------------------


def build_pair(case: Case) -> tuple[Any, Any]:
    """The same object from both packages, with the same parameters, some of whose gates are closed."""
    classes = [getattr(importlib.import_module(f"{root}.{case.module}"), case.name) for root in ("l0", "l0fast")]
    theirs, ours = (cls(*case.arguments, **case.options) for cls in classes)
    if isinstance(theirs, nn.Module):
        share_parameters(theirs, ours)
    return theirs, ours


def share_parameters(theirs: nn.Module, ours: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(1.5 * torch.randn(parameter.shape, generator=generator))
    ours.load_state_dict(theirs.state_dict())
    theirs.eval(), ours.eval()


def object_rows(case: Case, place: str) -> Iterator[Row]:
    """Attributes after construction, keys of the state_dict, and the result of each call."""
    theirs, ours = build_pair(case)
    for name in attributes(theirs):
        expected, found = getattr(theirs, name), getattr(ours, name, None)
        same = hasattr(ours, name) and equal(expected, found)
        yield Row(place, "attribute", name, brief(expected), brief(found) if hasattr(ours, name) else "", same)
    if isinstance(theirs, nn.Module):
        keys = ours.state_dict().keys()
        for key, value in theirs.state_dict().items():
            yield Row(
                place, "state_dict key", f"state_dict[{key}]", brief(value), key if key in keys else "", key in keys
            )
    missed = {n for n, m in own_members(type(theirs)).items() if inspect.isfunction(m)} - {c.name for c in case.calls}
    for call in case.calls:
        yield result_row(place, call, theirs, ours)
    for name in sorted(missed - {"save_to_csv", "plot_history"}):
        yield Row(place, "result", f"{name}()", "no call in api_cases.py", "", False)


def result_row(place: str, call: Call, theirs, ours) -> Row:
    expected = getattr(theirs, call.name)(*call.arguments, **call.options)
    try:
        found = getattr(ours, call.name)(*call.arguments, **call.options)
    except Exception as error:  # a row of the table, whatever it is
        return Row(place, "result", f"{call.name}()", brief(expected), f"{type(error).__name__}: {error}", False)
    same = equal(expected, found, values=not call.random)
    return Row(place, "result", f"{call.name}()", brief(expected), brief(found), same)


def attributes(thing) -> list[str]:
    names = [name for name in vars(thing) if not name.startswith("_") and name != "training"]
    for group in ("_parameters", "_buffers", "_modules"):
        names += list(vars(thing).get(group, {}))
    return names


def function_rows() -> Iterator[Row]:
    packages = [importlib.import_module(root) for root in ("l0", "l0fast")]
    for name, work in FUNCTIONS.items():
        theirs, ours = (mixed_model(package) for package in packages)
        share_parameters(theirs, ours)
        expected, found = (work(*pair) for pair in zip(packages, (theirs, ours), strict=True))
        module, _, function = name.partition(".")
        yield Row(f"l0.{module}", "result", function, brief(expected), brief(found), equal(expected, found))


# -- comparing results ------------------------------------------------------------------------------------------------


def equal(expected, found, values: bool = True) -> bool:
    """The same type all the way down, dtype and shape; with ``values`` also the same numbers to float32's rounding."""
    if isinstance(expected, nn.Module):
        same = type(expected).__name__ == type(found).__name__
        return same and equal(dict(expected.state_dict()), dict(found.state_dict()), values)
    if type(expected) is not type(found) and type(expected).__name__ != "defaultdict":
        return False
    if isinstance(expected, dict):
        return list(expected) == list(found) and all(equal(expected[key], found[key], values) for key in expected)
    if isinstance(expected, tuple | list):
        pairs = list(zip(expected, found, strict=False))
        return len(expected) == len(found) and all(equal(*pair, values) for pair in pairs)
    if isinstance(expected, Tensor | np.ndarray):
        if (expected.dtype, expected.shape) != (found.dtype, found.shape):
            return False
        if not values:
            return True
        if isinstance(expected, np.ndarray):
            return bool((expected == found).all())
        return torch.allclose(expected, found, rtol=1e-4, atol=1e-5)
    if isinstance(expected, float):
        return not values or abs(expected - found) <= 1e-5 + 1e-4 * abs(expected)
    return not values or expected == found


def brief(value) -> str:
    """Type and shape of a large thing, a small one as it is."""
    if isinstance(value, Tensor) and value.dim() == 0:
        return f"Tensor {value.item():.6g}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, tuple | list) and any(isinstance(v, Tensor | np.ndarray) for v in value):
        return ", ".join(brief(v) for v in value)
    if isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()):
        return "; ".join(f"{key}: " + ", ".join(f"{k} {brief(v)}" for k, v in d.items()) for key, d in value.items())
    if isinstance(value, dict):
        return f"dict of {', '.join(map(str, value)) or 'nothing'}"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) < 60 else text[:57] + "..."


# -- the table --------------------------------------------------------------------------------------------------------


def all_rows() -> list[Row]:
    rows = list(name_rows(""))
    for module in SUBMODULES:
        rows += name_rows(f".{module}")
    for case in CASES:
        rows += object_rows(case, f"l0.{case.module}.{case.name}")
    return rows + list(function_rows())


def unexplained(rows: list[Row]) -> list[str]:
    """Differences without a reason, and reasons without a difference."""
    different = {row.key: row for row in rows if not row.same}
    problems = [f"{r.key}: {r.theirs or 'nothing'} became {r.ours or 'nothing'}" for r in different.values()]
    problems = [p for p, key in zip(problems, different, strict=True) if key not in REASONS]
    return problems + [f"{key}: has a reason but no difference" for key in REASONS if key not in different]


def markdown(rows: list[Row]) -> Iterator[str]:
    yield "| where | what | l0-python | l0fast |"
    yield "|---|---|---|---|"
    for row in rows:
        verdict = "same" if row.same else f"{row.ours or 'missing'}: {REASONS.get(row.key, '**not explained**')}"
        yield (
            "| "
            + " | ".join(
                cell.replace("|", "\\|") for cell in (row.place, f"{row.kind} `{row.name}`", f"`{row.theirs}`", verdict)
            )
            + " |"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--differences", action="store_true", help="only the rows that are not the same")
    options = parser.parse_args(arguments)
    rows = all_rows()
    print("\n".join(markdown([row for row in rows if not (options.differences and row.same)])))
    same = sum(row.same for row in rows)
    problems = unexplained(rows)
    print(f"\n{len(rows)} rows, {same} the same, {len(rows) - same} different, {len(problems)} of them unexplained")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
