"""A variant of a case, ready to be timed: parameters in a common state, input, gradients of its outputs, optimizer."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from layer_cases import COMPILED, COMPOSED, OURS, PEER, PENALTY_WEIGHT, Case, Outputs
from torch import Tensor

STILL = 1e-12
"""Step of the optimizer: it does its work and nothing moves, so that every round meets the same gates."""


class Contender:
    """What is timed: ``step`` (training), ``infer`` (outputs only), in the mode that it was built for."""

    def __init__(self, name: str, case: Case, mode: str, state: dict[str, Tensor], x: Tensor, adam: bool):
        self.name, self.case, self.mode = name, case, mode
        self.module, outputs, infer = case.make(PEER if name == COMPILED else name)
        self.gated = name != case.floor
        self.module.load_state_dict({key: state[key] for key in self.module.state_dict()})
        self.module.train(mode != "eval")
        self.x = x.detach().clone().requires_grad_(case.input_grad and mode == "step")
        self.parameters = list(self.module.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=STILL, fused=True) if adam else None
        self.outputs = self._function(outputs if mode == "step" else infer, name == COMPILED)
        self.gradients = self._gradients(outputs) if mode == "step" else []
        self.run = self.step if mode == "step" else self.infer

    def _function(self, work, compiled: bool) -> Callable[[Tensor], Outputs]:
        module = self.module

        def function(x: Tensor) -> Outputs:
            return work(module, x)

        if not compiled:
            return function
        torch.compiler.reset()  # else the guards of what was measured before are checked first, on every call
        return torch.compile(function, dynamic=False)

    def _gradients(self, outputs) -> list[Tensor]:
        """Of y: the same random numbers for all contenders. Of the penalty: its weight in the loss."""
        with torch.no_grad():
            shapes = [output.shape for output in outputs(self.module, self.x)]
        y = torch.randn(shapes[0], generator=torch.Generator().manual_seed(1))
        return [y, torch.tensor(PENALTY_WEIGHT)][: len(shapes)]

    # -- what is timed -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.backward()
        if self.optimizer is not None:
            self.optimizer.step()

    def infer(self) -> None:
        with torch.no_grad():
            self.outputs(self.x)

    # -- what is compared --------------------------------------------------------------------------------------------

    def backward(self, gradients: list[Tensor] | None = None) -> Outputs:
        """Forward and backward, from the gradients that are timed unless given others; returns the outputs."""
        self.x.grad = None
        for parameter in self.parameters:
            parameter.grad = None
        outputs = self.outputs(self.x)
        if outputs[0].requires_grad:
            torch.autograd.backward(outputs, gradients or self.gradients)
        return outputs

    def bytes_kept(self) -> int:
        """Bytes that a forward pass leaves for backward, other than the parameters and the input."""
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = self.outputs(self.x)
        saved += [tensor for output in outputs for tensor in held_by_nodes(output)]
        known = {storage(tensor) for tensor in (self.x, *self.module.parameters(), *self.module.buffers())}
        kept = {storage(tensor): tensor.untyped_storage().nbytes() for tensor in saved}
        return sum(size for key, size in kept.items() if key not in known)


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def held_by_nodes(output: Tensor) -> list[Tensor]:
    """Tensors that nodes written in Python keep as attributes, which saved_tensors_hooks does not see."""
    found, nodes, seen = [], [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        for value in getattr(node, "__dict__", {}).values():
            values = value if isinstance(value, list | tuple) else [value]
            found += [v for v in values if isinstance(v, Tensor)]
    return found


# -- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What all contenders of a case begin with."""

    state: dict[str, Tensor]
    x: Tensor


def start_of(case: Case) -> Start:
    """Random weights and biases, and gates of which some are open, some closed and most in between."""
    generator = torch.Generator().manual_seed(0)
    shapes = {key: tensor.shape for key, tensor in case.make(OURS)[0].state_dict().items()}
    state = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    for key, tensor in state.items():
        if not key.endswith("qz_logits"):
            tensor /= tensor[0].numel() ** 0.5
    return Start(state, torch.randn(case.input_shape, generator=generator))


def names_of(case: Case, wanted: list[str]) -> list[str]:
    """The contenders of a case, its floor first."""
    gated = [name for name in (PEER, COMPILED, OURS, COMPOSED) if name in wanted]
    return [case.floor] + [name for name in gated if name != COMPOSED or case.composed]


def installed() -> bool:
    return importlib.util.find_spec("l0") is not None


def contenders_of(case: Case, mode: str, wanted: list[str], adam: bool) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can run, and why the others cannot."""
    start = start_of(case)
    running, left_out = [], {}
    for name in names_of(case, wanted):
        contender = Contender(name, case, mode, start.state, start.x, adam and mode == "step")
        if name == COMPILED:
            try:
                contender.run()
            except Exception as error:  # whatever the compiler and the C++ compiler below it may say
                left_out[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                continue
        running.append(contender)
    return running, left_out
