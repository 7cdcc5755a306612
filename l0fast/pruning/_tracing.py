"""One run of a model, in which every tensor carries the channels that its elements belong to.

Beside each activation goes a :class:`Shadow`: for each element the number of the channel it belongs to, and whether
its value is independent of the model's input. Operations that only move, repeat or combine elements one by one do the
same to the shadow; any other operation pins the channels it reads, so what is not understood is never removed.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import _channels as ch
from . import _rules
from ._shadow import Shadow


class Tracer(TorchDispatchMode):
    """Follows the channels of the known layers through everything that runs while it is active.

    Attributes:
        channels: the sets found. ports: those of each known layer.
        not_run: the known layers that the run did not reach.
        constants: for each layer that mixes channels, the value of each input channel, NaN where it is no constant.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.channels = ch.Channels()
        known = {m: n for n, m in model.named_modules() if ch.is_known(m) and not _has_hooks(m)}
        self.ports = {layer: self.channels.add(name, layer) for layer, name in known.items()}
        self.constants: dict[nn.Module, Tensor] = {}
        self._owner = {p: ports for ports in self.ports.values() for p in ports.layer.parameters(recurse=False)}
        self.not_run = set(self.ports)
        self._inside = 0
        self._shadows: dict[int, Shadow] = {}
        self._alive: list[Tensor] = []  # an id must not be used again
        self._storages: dict[int, list[Tensor]] = {}
        self._poisoned: dict[int, Tensor] = {}
        self._pin_special_layers(model)

    def _pin_special_layers(self, model: nn.Module) -> None:
        holders: dict[nn.Parameter, list[str]] = {}
        for name, module in model.named_modules():
            for parameter in module.parameters(recurse=False):
                holders.setdefault(parameter, []).append(name)
        for ports in self.ports.values():
            if ch.is_grouped(ports.layer):
                self._pin_ports(ports, f"{ports.name!r} is a grouped convolution")
        for parameter, names in holders.items():
            if len(names) > 1 and parameter in self._owner:
                for ports in (p for p in self.ports.values() if p.name in names):
                    self._pin_ports(ports, f"{' and '.join(map(repr, names))} share a parameter")

    # -- one run -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def run(self, model: nn.Module, positional: tuple, named: dict):
        """Runs the model on inputs; its outputs' channels are pinned. Returns the outputs."""
        inputs = [leaf for leaf in tree_leaves((positional, named)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            self.put(tensor, Shadow.unknown(tensor))
        hooks = []
        for layer in self.ports:
            hooks.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
            hooks.append(layer.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with self:
                outputs = model(*positional, **named)
        finally:
            for hook in hooks:
                hook.remove()
        for layer in self.not_run:
            self._pin_ports(self.ports[layer], "it was not run")
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self.pin(self.shadow_of(leaf), "it reaches the model's output")
        return outputs

    def shadow_of(self, tensor: Tensor) -> Shadow | None:
        """None for what does not depend on the input: parameters, buffers and what is made of them."""
        if id(tensor) in self._shadows:
            return self._shadows[id(tensor)]
        return Shadow.unknown(tensor) if _storage(tensor) in self._poisoned else None

    def put(self, tensor: Tensor, shadow: Shadow) -> None:
        if id(tensor) not in self._shadows:
            self._alive.append(tensor)
            self._storages.setdefault(_storage(tensor), []).append(tensor)
        self._shadows[id(tensor)] = Shadow.unknown(tensor) if _storage(tensor) in self._poisoned else shadow

    def pin(self, shadow: Shadow | None, reason: str) -> None:
        for label in [] if shadow is None else shadow.labels.unique().tolist():
            if label >= 0:
                self.channels.pin(label, reason)

    def _pin_ports(self, ports: ch.Ports, reason: str) -> None:
        for channel in (*ports.outputs, *ports.inputs):
            self.channels.pin(channel, reason)

    # -- operations --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._inside:
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func, args, kwargs, out) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for parameter in tensors:
            if isinstance(parameter, nn.Parameter) and parameter in self._owner:
                ports = self._owner[parameter]
                self._pin_ports(ports, f"a parameter of {ports.name!r} is used outside of it")
        random = torch.Tag.nondeterministic_seeded in func.tags
        if func.overloadpacket in _rules.METADATA and not random:
            return
        if not random and all(self.shadow_of(tensor) is None for tensor in tensors):
            return
        rule = _rules.rule_of(func)
        written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        targets = _targets(func, args, kwargs)
        alone = func._schema.name.endswith("_") and len(targets) == 1 and not self._is_aliased(targets[0])
        if targets and not (alone and rule is _rules.elementwise):
            self._poison(func, tensors, targets)
        elif random or rule is None or not rule(self, func, args, kwargs, out):
            for tensor in tensors:
                self.pin(self.shadow_of(tensor), f"{func.overloadpacket} reads it")
            for tensor in written:
                self.put(tensor, Shadow.unknown(tensor))

    def _is_aliased(self, tensor: Tensor) -> bool:
        """Whether another tensor with a shadow, or an untracked base, shares the memory that is written to."""
        others = self._storages.get(_storage(tensor), [])
        return tensor.numel() != tensor.untyped_storage().nbytes() // tensor.element_size() or any(
            other is not tensor for other in others
        )

    def _poison(self, func, tensors: list[Tensor], targets: list[Tensor]) -> None:
        """Writing to part of a tensor, or under a view of it: no view of that memory is followed any more."""
        for tensor in tensors:
            self.pin(self.shadow_of(tensor), f"{func.overloadpacket} reads or writes it in place")
        for tensor in targets:
            self._poisoned.setdefault(_storage(tensor), tensor)
            for other in self._storages.get(_storage(tensor), []):
                self.pin(self._shadows[id(other)], f"{func.overloadpacket} writes to its memory")
                self._shadows[id(other)] = Shadow.unknown(other)
            self.put(tensor, Shadow.unknown(tensor))

    # -- known layers ------------------------------------------------------------------------------------------------

    def _enter(self, layer, args, kwargs) -> None:
        self._inside += 1

    def _leave(self, layer, args, kwargs, out) -> None:
        self.not_run.discard(layer)
        x = args[0] if args else next(iter(kwargs.values()))
        ports, axis = self.ports[layer], ch.channel_axis(layer, out.dim())
        shadow = self.shadow_of(x) or Shadow.unknown(x, fixed=True)
        across = [-1 if d == axis else 1 for d in range(out.dim())]
        closed = ch.closed_outputs(layer).to(out.device)
        if type(layer) is nn.Embedding:
            self.pin(shadow, f"{ports.name!r} takes it as an index")
            fixed = closed.view(across)
        else:
            x_axis = ch.channel_axis(layer, x.dim())
            self._link(ports, shadow, x_axis, x.shape[x_axis])
            fixed = closed.view(across)
            if ch.is_per_channel(layer):
                over = [d for d in range(x.dim()) if d != x_axis]
                fixed = fixed | shadow.fixed.amin(over, keepdim=True)
            else:
                self._note_constants(layer, x, shadow, x_axis)
        labels = torch.arange(ports.outputs.start, ports.outputs.stop, device=out.device)
        self.put(out, Shadow.of(labels.view(across), fixed))
        self._inside -= 1

    def _link(self, ports: ch.Ports, shadow: Shadow, axis: int, size: int) -> None:
        """Input channels of the layer and the channels that it reads go together."""
        if any(n > 1 for d, n in enumerate(shadow.labels.shape) if d != axis):
            self.pin(shadow, f"{ports.name!r} reads it along another dimension than its channels")
            labels = [-1] * size
        else:
            labels = shadow.labels.reshape(-1).expand(size).tolist()
        for channel, label in zip(ports.inputs, labels, strict=True):
            if label < 0:
                self.channels.pin(channel, f"{ports.name!r} reads the model's input or what was not followed")
            else:
                self.channels.unite(label, channel)

    def _note_constants(self, layer: nn.Module, x: Tensor, shadow: Shadow, axis: int) -> None:
        values = constant_channels(x, shadow.fixed, axis)
        if layer in self.constants:  # a second call: only what is the same in both
            values = torch.where(values == self.constants[layer], values, torch.nan)
        self.constants[layer] = values


def constant_channels(x: Tensor, fixed: Tensor, axis: int) -> Tensor:
    """The value [channels] of each channel that does not depend on the input and is the same everywhere, else NaN.

    The same up to rounding: a vectorised loop and its remainder may differ in the last bits.
    """
    over = [d for d in range(x.dim()) if d != axis]
    fixed = (fixed.amin(over) if over else fixed).expand(x.shape[axis]).cpu()
    if x.is_complex() or not fixed.any():
        return torch.full((x.shape[axis],), torch.nan, dtype=torch.float64)
    low, high = (x.detach().amin(over), x.detach().amax(over)) if over else (x, x)
    eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    low, high = low.double().cpu(), high.double().cpu()
    same = (high - low) <= 16 * eps * torch.maximum(low.abs(), high.abs())
    return torch.where(fixed & same, (low + high) / 2, torch.nan)


def _targets(func, args, kwargs) -> list[Tensor]:
    """The arguments that an operation writes to."""
    named = {**dict(zip((a.name for a in func._schema.arguments), args, strict=False)), **kwargs}
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for name in written for leaf in tree_leaves(named.get(name)) if isinstance(leaf, Tensor)]


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _storage(tensor: Tensor) -> int:
    """A number for the memory behind the tensor; those without ordinary memory share it with nobody."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
