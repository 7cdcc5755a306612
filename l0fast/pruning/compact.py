"""A smaller ordinary model that computes what the gated one does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._checks import as_probability, positive
from ..layers.prune import prune_model
from . import _channels as ch
from ._plan import Cluster, Plan
from ._tracing import Tracer
from .materialize import materialize


@dataclass
class CompactReport:
    """What :func:`compact` did.

    Attributes:
        removed: for each layer that has fewer outputs now, their numbers before and after.
        kept: for each layer with closed outputs that stay, the reason and their indices in the gated layer.
        not_run: layers that ``example_input`` did not reach. They are unchanged; a call that reaches them may not fit.
        parameters: of the materialized model and of the compact one.
        max_difference: largest difference of an output, relative to the largest output (or to 1 if that is larger).
    """

    removed: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)
    parameters: tuple[int, int] = (0, 0)
    max_difference: float = 0.0

    def __str__(self) -> str:
        lines = [f"parameters: {self.parameters[0]:,} -> {self.parameters[1]:,}"]
        lines += [f"{name}: {before} -> {after} outputs" for name, (before, after) in self.removed.items()]
        for name, reasons in self.kept.items():
            lines += [f"{name}: {len(those)} closed kept: {reason}" for reason, those in reasons.items()]
        lines += [f"{name}: not run with this example_input" for name in self.not_run]
        return "\n".join([*lines, f"largest difference: {self.max_difference:.1e}"])


def compact(
    model: nn.Module, example_input: Any, threshold: float = 0.0, *, tolerance: float | None = None
) -> tuple[nn.Module, CompactReport]:
    """The model with ordinary layers (:func:`materialize`) and without the channels that its closed gates made useless.

    Taken out are outputs of linear, convolution and embedding layers whose weights are all 0, and outputs that nobody
    reads, together with what belongs to them downstream (batch norm, depthwise filters, inputs of the next layers).
    A closed output is not 0 but its bias, and a constant behind batch norms and activations: that constant goes into
    the bias of the layers that read it, or, where these pad with zeros, into the weights of one closed channel that
    stays to carry the constants of all. Channels stay where removal would not be exact; the report says which and why.

    Channels are followed through one run of the model, at the level of torch's own operations: through elementwise
    operations, additions, concatenation, pooling, flattening and depthwise convolutions; whatever an operation without
    a rule reads (softmax over channels, layer norm, grouped convolutions, indexing of channels) stays. The code of the
    model's ``forward`` is untouched. The result is compared with the materialized model on ``example_input`` and on its
    values in another order; removals that a forward does not survive (sizes written in the code) are taken back.

    Args:
        model: holds gated layers; is left as it is.
        example_input: a tensor, a tuple of positional arguments or a dict of named ones. Its batch size does not
            matter. Branches that it does not take are not seen.
        threshold: gates with P(z != 0) <= threshold are closed first (:func:`prune_model`); in [0, 1].
        tolerance: largest difference allowed, relative to the largest output (or to 1); by default 1e-5, and 32 units
            of the last place for half precision.

    Returns:
        The compact model in evaluation mode, and a :class:`CompactReport`. Outputs keep their shapes, and every layer
        at least one channel.

    Raises:
        TypeError, ValueError: an argument, or a gated layer that cannot be materialized, by name; also where the model
            does not run on example_input.
        RuntimeError: the model's outputs differ from run to run.
    """
    threshold = as_probability("threshold", threshold)
    tolerance = None if tolerance is None else positive("tolerance", tolerance)
    arguments = _arguments(example_input)
    if threshold > 0:
        model = materialize(prune_model(model, threshold, inplace=False), inplace=True)
    else:
        model = materialize(model)
    check = _Check(model, arguments, tolerance)
    report = CompactReport(parameters=(_count(model), 0))
    origin = {n: list(range(ch.out_channels(m))) for n, m in model.named_modules() if ch.is_known(m)}
    first = {name: len(those) for name, those in origin.items()}
    banned: dict[Cluster, str] = {}
    while True:
        tracer = Tracer(model)
        tracer.run(model, *arguments)
        plan = Plan(tracer, banned)
        if not plan.removed:
            break
        candidate = plan.apply(model)
        if check.failure(candidate) is None:
            for ports in plan.ports:
                origin[ports.name] = [origin[ports.name][i] for i in plan.kept_outputs(ports)]
            model = candidate
        else:
            banned.update(_culprits(plan, model, check))
    _fill(report, plan, tracer, origin, first)
    report.parameters = (report.parameters[0], _count(model))
    failure = check.failure(model)
    if failure is not None:
        raise RuntimeError(f"compact: the result would not compute what the model does: {failure}")
    report.max_difference = check.largest
    return model, report


def _culprits(plan: Plan, model: nn.Module, check: "_Check") -> dict[Cluster, str]:
    """The parts of the plan that fail alone; all of them, if they fail only together."""
    failures = {cluster: check.failure(plan.apply(model, only=cluster)) for cluster in plan.clusters()}
    alone = {cluster: failure for cluster, failure in failures.items() if failure is not None}
    text = "without it the model's forward fails or computes something else"
    return {cluster: f"{text}: {alone.get(cluster, 'together with others')}" for cluster in alone or failures}


def _fill(report: CompactReport, plan: Plan, tracer: Tracer, origin: dict, first: dict) -> None:
    makers = {p.name for p in plan.ports if type(p.layer) in ch.MIXING or isinstance(p.layer, nn.Embedding)}
    report.removed = {n: (first[n], len(origin[n])) for n in origin if n in makers and len(origin[n]) < first[n]}
    for number, members in plan.sets.items():
        for name, index in members.closed:
            those = report.kept.setdefault(name, {}).setdefault(plan.reasons[number], [])
            those.append(origin[name][index])
    report.not_run = sorted(tracer.ports[layer].name for layer in tracer.not_run)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _arguments(example_input: Any) -> tuple[tuple, dict]:
    if isinstance(example_input, Tensor):
        arguments = (example_input,), {}
    elif isinstance(example_input, Mapping):
        arguments = (), dict(example_input)
    elif isinstance(example_input, tuple | list):
        arguments = tuple(example_input), {}
    else:
        kind = type(example_input).__name__
        raise TypeError(
            f"example_input: expected a tensor, a tuple of arguments or a dict of named arguments, got {kind}"
        )
    tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    if not tensors:
        raise TypeError(f"example_input: expected at least one tensor in it, got {example_input!r}")
    if any(tensor.numel() == 0 for tensor in tensors):
        raise ValueError(f"example_input: expected no empty tensor, got shapes {[list(t.shape) for t in tensors]}")
    return arguments


class _Check:
    """Compares models with the outputs of the first one."""

    def __init__(self, model: nn.Module, arguments: tuple[tuple, dict], tolerance: float | None):
        self.tolerance = tolerance
        self.largest = 0.0
        try:
            result = _run(model, arguments)
        except Exception as error:
            raise ValueError(f"example_input: the model does not run on it: {error}") from error
        self.probes = [(arguments, _tensors(result))]
        if not all(torch.isfinite(output).all() for output in self.probes[0][1]):
            raise ValueError("example_input: the model's output on it is not finite")
        shuffled = _shuffled(arguments)
        try:
            outputs = _tensors(_run(model, shuffled))
        except Exception:  # an order that the model asks for: the example alone has to do
            outputs = [torch.tensor(torch.nan)]
        if all(torch.isfinite(output).all() for output in outputs):
            self.probes.append((shuffled, outputs))
        if (failure := self.failure(model)) is not None:
            raise RuntimeError(f"compact: the model's outputs differ between two runs: {failure}")

    def failure(self, model: nn.Module) -> str | None:
        """What is wrong with the model's outputs, or None."""
        self.largest = 0.0
        for arguments, expected in self.probes:
            try:
                outputs = _tensors(_run(model, arguments))
            except Exception as error:
                return f"{type(error).__name__}: {error}".splitlines()[0]
            if len(outputs) != len(expected):
                return f"{len(outputs)} outputs, expected {len(expected)}"
            for output, wanted in zip(outputs, expected, strict=True):
                if output.shape != wanted.shape or output.dtype != wanted.dtype:
                    return f"an output of shape {list(output.shape)}, expected {list(wanted.shape)}"
                if not self._close(output, wanted):
                    return f"an output differs by {self.largest:.1e}"
        return None

    def _close(self, output: Tensor, wanted: Tensor) -> bool:
        if not (wanted.is_floating_point() or wanted.is_complex()):
            return torch.equal(output, wanted)
        if wanted.numel() == 0:
            return True
        difference = (output - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
        self.largest = max(self.largest, difference)
        eps = torch.finfo(wanted.dtype).eps
        return difference <= (max(1e-5, 32 * eps if eps > 1e-6 else 0.0) if self.tolerance is None else self.tolerance)


@torch.no_grad()
def _run(model: nn.Module, arguments: tuple[tuple, dict]) -> Any:
    positional, named = arguments
    return model(*positional, **named)


def _tensors(outputs: Any) -> list[Tensor]:
    leaves = [leaf for leaf in tree_leaves(outputs) if leaf is not None]
    odd = [leaf for leaf in leaves if not isinstance(leaf, Tensor | int | float | str | bool)]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if odd or not tensors:
        got = type(odd[0]).__name__ if odd else "none"
        raise TypeError(f"model: expected outputs of tensors in tuples, lists and dicts, got {got}")
    return tensors


def _shuffled(arguments: tuple[tuple, dict]) -> tuple[tuple, dict]:
    """The same inputs with the values of each tensor in another order, the same each time."""
    generator = torch.Generator().manual_seed(0)

    def shuffle(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        order = torch.randperm(leaf.numel(), generator=generator).to(leaf.device)
        return leaf.reshape(-1)[order].reshape(leaf.shape)

    return tree_map(shuffle, arguments)
