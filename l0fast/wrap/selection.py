"""Which parameters of a module are gated, and which of a user's choices is meant for which."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._checks import FLOATING
from ..distributions import HardConcrete

Selector = str | type | Callable[[str, nn.Parameter], bool]
"""A name or glob of parameters or modules, a type of module, or a function of (name, parameter)."""


class Entry(NamedTuple):
    """A parameter, once however often it is registered."""

    name: str  # the first of its names
    names: tuple[str, ...]
    parameter: nn.Parameter
    owners: tuple[nn.Module, ...]  # the modules that hold it under these names, and all modules around those


def entries_of(module: nn.Module) -> list[Entry]:
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return [Entry(all_[0], tuple(all_), p, tuple(_around(module, all_))) for p, all_ in names.items()]


def _around(module: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    found = []
    for name in names:
        parts = name.split(".")[:-1]
        found += [module.get_submodule(".".join(parts[:k])) for k in range(len(parts), -1, -1)]
    return found


def checked_selector(argument: str, selector: Any) -> Selector:
    if isinstance(selector, type):
        if not issubclass(selector, nn.Module):
            raise TypeError(f"{argument}: expected a type of module, got {selector.__name__}")
        return selector
    if isinstance(selector, str) or (callable(selector) and not isinstance(selector, nn.Module)):
        return selector
    raise TypeError(
        f"{argument}: expected a name, a glob, a type of module or a function of (name, parameter), "
        f"got {type(selector).__name__} ({selector!r})"
    )


def selects(selector: Selector, entry: Entry) -> bool:
    """A string means the parameter of this name, all below the module of this name, or what matches it as a glob."""
    if isinstance(selector, type):
        return any(isinstance(owner, selector) for owner in entry.owners)
    if isinstance(selector, str):
        return any(
            name == selector or name.startswith(selector + ".") or fnmatchcase(name, selector) for name in entry.names
        )
    return bool(selector(entry.name, entry.parameter))


def gated_entries(module: nn.Module, exclude) -> list[Entry]:
    """The parameters to gate, all of them fit for it.

    Raises:
        TypeError, ValueError: see :class:`l0fast.L0Regularizer`.
    """
    single = isinstance(exclude, str | type) or not isinstance(exclude, Iterable)
    selectors = [checked_selector("exclude", s) for s in ([exclude] if single else exclude)]
    _check_module(module)
    entries = entries_of(module)
    if not entries:
        raise ValueError(f"module: expected parameters to gate, got a {type(module).__name__} without any")
    _check_known("exclude", selectors, entries)
    kept = [entry for entry in entries if not any(selects(s, entry) for s in selectors)]
    if not kept:
        raise ValueError(f"exclude: expected to leave parameters to gate, got all {len(entries)} excluded")
    for entry in kept:
        _check_parameter(entry)
    _check_memory(kept, entries)
    return kept


def choices(argument: str, given, entries: list[Entry], default) -> list:
    """What is chosen for each entry: one choice for all, or a mapping from selectors, whose first match counts."""
    if not isinstance(given, Mapping):
        return [given] * len(entries)
    selectors = [checked_selector(argument, s) for s in given]
    _check_known(argument, selectors, entries)
    table = list(zip(selectors, given.values(), strict=True))
    return [next((choice for s, choice in table if selects(s, entry)), default) for entry in entries]


def _check_known(argument: str, selectors: list[Selector], entries: list[Entry]) -> None:
    """A string that means nothing is a mistake; a type or a function may be part of a list for many models."""
    for selector in selectors:
        if isinstance(selector, str) and not any(selects(selector, entry) for entry in entries):
            some = ", ".join(entry.name for entry in entries[:8]) + (", ..." if len(entries) > 8 else "")
            raise ValueError(f"{argument}: expected a name or glob of these parameters: {some}; got {selector!r}")


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for name, inner in module.named_modules():
        kind, where = type(inner).__name__, f"{name!r}" if name else "it"
        if isinstance(inner, HardConcrete) or callable(getattr(inner, "get_l0_penalty", None)):
            raise ValueError(f"module: expected one without L0 gates, got gates already: {where} is a {kind}")
        if isinstance(inner, torch.jit.ScriptModule):
            raise TypeError(f"module: expected Python modules, whose parameters can be replaced; {where} is a {kind}")


def _check_parameter(entry: Entry) -> None:
    if is_lazy(entry.parameter):
        raise ValueError(f"{entry.name}: expected a parameter with a shape, got a lazy one; call the module once first")
    if entry.parameter.dtype not in FLOATING:
        raise TypeError(
            f"{entry.name}: expected float16, bfloat16, float32 or float64, "
            f"got {str(entry.parameter.dtype).removeprefix('torch.')}; exclude it"
        )


def _check_memory(gated: list[Entry], entries: list[Entry]) -> None:
    """Parameters that are one object are gated once; those that only share memory would be gated twice, or half."""
    spans: dict[tuple, list[tuple[int, int, Entry]]] = {}
    for entry in entries:
        p = entry.parameter
        if not is_lazy(p) and type(p.data) is Tensor and p.layout == torch.strided and p.numel() and not p.is_meta:
            first = p.storage_offset() * p.itemsize
            last = first + (1 + sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True))) * p.itemsize
            spans.setdefault((p.device, p.untyped_storage().data_ptr()), []).append((first, last, entry))
    names = {entry.name for entry in gated}
    for members in spans.values():
        members.sort(key=lambda span: span[:2])
        for k, (begin, _, other) in enumerate(members):
            one = next((one for _, end, one in members[:k] if begin < end and names & {one.name, other.name}), None)
            if one is not None:
                raise ValueError(
                    f"{other.name}: expected memory of its own, got the memory of {one.name}, which would be gated "
                    "twice; make them one parameter, which is gated once, or exclude both"
                )
