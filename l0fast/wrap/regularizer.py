"""Any module with L0 gates on its parameters: the class of the wrapper that people know, on fused kernels."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .. import constants as c
from .. import ops, reference
from .._checks import as_flag, as_probability, as_real
from ..ops._common import sum_dtype
from . import base, fused
from . import independent as per_example
from .arguments import check_limits, price
from .initial import LEAST, MOST, checked_choice, draw, open_rate
from .layout import Layout, layout_of
from .penalty import open_gates, regularization
from .selection import choices, gated_entries


class L0Regularizer(base.GatedParameters):
    r"""A copy of a module whose parameters are multiplied by Hard Concrete gates in every forward.

    In training a gate is ``z = clamp(s (limit_b - limit_a) + limit_a, 0, 1)`` with
    ``s = sigmoid((log u - log(1 - u) + log_alpha) / temperature)``, drawn anew at each forward by one launch for all
    gates of a dtype and device; in evaluation ``s = sigmoid(log_alpha / temperature)``. The parameters keep their
    values, names and ties: a parameter registered several times has its gates once.

    Args:
        module: any module that torch.func.functional_call takes. It is copied and stays as it is.
        lam: price of an open gate for each weight that it multiplies, at least 0.
        weight_decay: price of the square of an open weight, at least 0.
        temperature: beta, above 0; may be assigned later.
        droprate_init: initial ``1 - sigmoid(log_alpha)``, strictly between 0 and 1.
        limit_a: gamma, below 0.
        limit_b: zeta, above 1.
        epsilon: the uniform noise u is held to [epsilon, 1 - epsilon].
        exclude: parameters without gates: a name or glob of parameters or modules (``"head"``, ``"*.bias"``), a type of
            module (``nn.LayerNorm``), a function of (name, parameter), or a list of such.
        granularity: 'element'; 'row' or 'column', a gate per slice along dimension 0 or 1; 'channel', per output unit
            of any layer (dimension 1 of a transposed convolution, else 0); an int, per slice along that dimension;
            ('head', n), one for each of n blocks of rows, or ('head', n, 1) of columns. In nn.MultiheadAttention 'head'
            takes the module's number, and a head's rows in q, k and v share a gate. One choice for all parameters, or a
            dict from what ``exclude`` takes to choices: the first that fits counts, 'element' where none does.
        init: 'normal', N(log((1 - d) / d), 0.01^2) with d the droprate_init, or ('normal', std); 'constant', the mean
            itself, or ('constant', d); 'magnitude', odds of being open in proportion to the root mean square of the
            gate's weights, (1 - d) / d on geometric average; or a function of (name, parameter, shape) that returns
            log_alpha. One for all or a dict, as for granularity; 'normal' where nothing fits.
        independent: whether each example of a batch has gates of its own in training: :attr:`independent`.
        batch_dim: dimension of the examples in inputs and outputs, for that.
        eval_temperature: False leaves the temperature out of the gates in evaluation, as the original authors do.

    Attributes:
        module: the copy, with its parameters.
        log_alpha: the gates' parameters under the names of what they gate: ``log_alpha.encoder.weight`` belongs to
            ``module.encoder.weight``; of its shape, or of one dimension where a gate multiplies several weights.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, a module without parameters or with gates
            already, nothing left to gate, a parameter that is no real float (exclude it) or shares memory with another
            one, or a granularity that a parameter cannot have: by name, before anything is copied.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), sections 2 and 4; DESIGN 3.
    """

    def __init__(
        self,
        module: nn.Module,
        lam: float,
        weight_decay: float = 0,
        temperature: float = c.BETA,
        droprate_init: float = 0.2,
        limit_a: float = c.GAMMA,
        limit_b: float = c.ZETA,
        epsilon: float = c.UNIFORM_EPS,
        *,
        exclude=(),
        granularity="element",
        init="normal",
        independent: bool = False,
        batch_dim: int = 0,
        eval_temperature: bool = True,
    ):
        super().__init__()
        self.lam, self.weight_decay = price("lam", lam), price("weight_decay", weight_decay)
        self.temperature = temperature
        open_rate("droprate_init", droprate_init)
        self.droprate_init = droprate_init
        self.limit_a, self.limit_b, self.epsilon = as_real("limit_a", limit_a), as_real("limit_b", limit_b), epsilon
        check_limits(self.limit_a, self.limit_b, as_real("epsilon", epsilon))
        self.eval_temperature = as_flag("eval_temperature", eval_temperature)
        if isinstance(batch_dim, bool) or not isinstance(batch_dim, int):
            raise TypeError(f"batch_dim: expected an int, got {batch_dim!r}")
        self.batch_dim = batch_dim
        entries = gated_entries(module, exclude)
        grains = choices("granularity", granularity, entries, "element")
        layouts = [layout_of(entry, grain) for entry, grain in zip(entries, grains, strict=True)]
        inits = choices("init", init, entries, "normal")
        inits = [checked_choice(entry, choice) for entry, choice in zip(entries, inits, strict=True)]
        if as_flag("independent", independent):
            per_example.check_exact(module)
        self._independent = independent
        self._links: list[fused.Link] = []
        self._layouts: dict[str, Layout] = {e.name: layout for e, layout in zip(entries, layouts, strict=True)}
        self._inits = {entry.name: choice for entry, choice in zip(entries, inits, strict=True)}
        drawn = [draw(e, layout, i, droprate_init) for e, layout, i in zip(entries, layouts, inits, strict=True)]
        self.module = copy.deepcopy(module)
        self.log_alpha = nn.Module()
        for entry, values in zip(entries, drawn, strict=True):
            base.register(self.log_alpha, entry.name, nn.Parameter(values))
        self.training = module.training  # train() would change a part that is in evaluation mode

    @property
    def independent(self) -> bool:
        """Whether each example of a batch has gates of its own in training (evaluation has no noise).

        The positional tensors are split along ``batch_dim``, what is passed by name is common to all examples; the
        module sees batches of one, and ``batch_dim`` of its outputs holds the examples again. Each example has a copy
        of the gated weights, which takes memory and time. Refused by name where it would not be exact: recurrent
        layers, normalisation over the batch. A forward that mixes examples by itself does so within each.
        """
        return self._independent

    @independent.setter
    def independent(self, value: bool) -> None:
        if as_flag("independent", value):
            per_example.check_exact(self.module)
        self._independent = value

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, *args, **kwargs):
        """What the module returns for these arguments, with gated parameters."""
        if self.training and self._independent:
            return self._call_per_example(args, kwargs)
        return functional_call(self.module, self.masked_parameters(), args, kwargs)

    def _call_per_example(self, args: tuple, kwargs: dict):
        per_example.check_exact(self.module)
        batch = per_example.batch_size(args, self.batch_dim)
        options = {"uniform_eps": self.epsilon, **self._shape()}
        groups = self._groups()
        gates = [ops.batch_gates(f, base._draw_seed(f.device), batch, **options) for f in (g.flat() for g in groups)]

        def masked(gates: list[Tensor]) -> dict[str, Tensor]:
            pairs = zip(groups, gates, strict=True)
            return {n: v for group, z in pairs for n, v in zip(group.names, group.multiplied(z), strict=True)}

        return per_example.call(self.module, masked, gates, args, kwargs, self.batch_dim)

    # -- penalties and counts ----------------------------------------------------------------------------------------

    def regularization(self) -> Tensor:
        """``sum p (weight_decay w^2 / 2 + lam)`` over the gated weights w, p = P(z != 0) of each weight's gate.

        A differentiable scalar, at least 0: the L0 penalty and the L2 penalty of the weights that are open. Add it to
        the loss as it is; a weight decay of the optimizer would come on top.
        """
        groups = self._groups()
        arguments = (self.lam, self.weight_decay, self._shape())
        return _total([regularization(group, *arguments, self._take_link(group)) for group in groups])

    def get_l0_penalty(self) -> Tensor:
        """Expected number of open gates, a differentiable scalar: what :func:`l0fast.compute_l0_penalty` adds up."""
        return _total([open_gates(group, self._shape(), self._take_link(group)) for group in self._groups()])

    @torch.no_grad()
    def count_l0(self) -> Tensor:
        """Expected number of gated weights that are not 0 in a forward, a scalar: gates count for all they multiply."""
        return _total([regularization(group, 1.0, 0.0, self._shape()) for group in self._groups()])

    @torch.no_grad()
    def count_l2(self) -> Tensor:
        """Sum of the squares of the gated weights times their gates without noise, a scalar."""
        masked = [values for group in self._groups() for values in self._draw(group, quiet=True)]
        sums = [values.square().sum(dtype=torch.float64) for values in masked]
        return _total(sums).to(sum_dtype(masked[0].dtype))

    def get_sparsity(self) -> float:
        """``1 - count_l0() / gated_count()``: the expected share of gated weights that are 0, in [0, 1]."""
        return 1.0 - self.count_l0().item() / max(self.gated_count(), 1)

    # -- changes -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def constrain_parameters(self) -> None:
        """Holds log_alpha to [log 0.01, log 100], in place: call it after the optimizer's step."""
        for log_alpha in self.log_alpha.parameters():
            log_alpha.clamp_(LEAST, MOST)

    @torch.no_grad()
    def reset_parameters(self, weights: bool = True) -> None:
        """Draws the module's parameters anew, each module by its own ``reset_parameters``, and then log_alpha.

        Parameters of modules that have no such method stay as they are.

        Args:
            weights: False draws log_alpha alone.
        """
        if as_flag("weights", weights):
            for inner in self.module.modules():
                reset = getattr(inner, "reset_parameters", None) or getattr(inner, "_reset_parameters", None)
                if callable(reset):
                    reset()
        for entry in gated_entries(self.module, lambda name, _: name not in self._layouts):
            values = draw(entry, self._layouts[entry.name], self._inits[entry.name], self.droprate_init)
            self.log_alpha.get_parameter(entry.name).copy_(values)

    @torch.no_grad()
    def prune(self, threshold: float = 0.05) -> None:
        """Sets the weights to 0, in place, whose gate has P(z != 0) <= threshold; see :func:`l0fast.prune_model`."""
        threshold = as_probability("threshold", threshold)
        for name, layout in self._layouts.items():
            p = reference.active_probability(self.log_alpha.get_parameter(name), **self._shape())
            weight = self.module.get_parameter(name)
            weight.copy_(layout.apply(weight, (p > threshold).to(weight.dtype)))

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """A plain copy of the module, in evaluation mode, whose parameters are ``parameter * z`` without noise."""
        plain = copy.deepcopy(self.module)
        for group in self._groups():
            for name, values in zip(group.names, self._draw(group, quiet=True), strict=True):
                plain.get_parameter(name).copy_(values)
        return plain.eval()

    def extra_repr(self) -> str:
        return f"lam={self.lam}, weight_decay={self.weight_decay}, temperature={self.temperature}"


def _total(terms: list[Tensor]) -> Tensor:
    """The sum on the first one's device, in float64 if one of them is."""
    if len(terms) == 1:
        return terms[0]
    dtype = torch.float64 if any(term.dtype == torch.float64 for term in terms) else torch.float32
    return torch.stack([term.to(terms[0].device, dtype) for term in terms]).sum()
