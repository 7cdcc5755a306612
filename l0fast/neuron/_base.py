"""What the neuron-level layers share: a gate for each group of weights, the log prior and the expected counts."""

import math

import torch
from torch import Tensor, nn

from .. import constants as c
from .. import ops, reference
from .._checks import as_flag, as_real, positive

LOG_ALPHA_RANGE = (math.log(1e-2), math.log(1e2))
"""Where :meth:`NeuronGatedLayer.constrain_parameters` holds ``qz_loga``: beyond it a gate would hardly ever move."""

INIT_SPREAD = 1e-2
"""Standard deviation of the initial ``qz_loga``: gates that begin equal would be told apart by their noise alone."""

GATE_DIM = 0
"""The dimension of ``weights`` with a gate for each slice: inputs of a dense layer, outputs of a convolution."""


class NeuronGatedLayer(nn.Module):
    """A layer with one Hard Concrete gate for each slice of ``weights`` along its first dimension (a group g).

    Attributes:
        weights, qz_loga, bias: parameters, named as by the original authors; bias is None without one.
        prior_prec: the weight decay, precision of the Gaussian prior of the weights. lamba: price of a weight.
        droprate_init, temperature, local_rep: as given.
    """

    weights: Tensor
    bias: Tensor | None
    bias_is_gated: bool

    def _make_parameters(
        self, shape: tuple[int, ...], outputs: int, bias, droprate_init, temperature, weight_decay, lamba, local_rep
    ) -> None:
        self.droprate_init = checked_droprate("droprate_init", droprate_init)
        self.temperature = positive("temperature", temperature)
        self.prior_prec = not_negative("weight_decay", weight_decay)
        self.lamba = not_negative("lamba", lamba)
        self.local_rep = as_flag("local_rep", local_rep)
        bias = as_flag("bias", bias)
        self.weights = nn.Parameter(torch.empty(shape))
        self.qz_loga = nn.Parameter(torch.empty(shape[GATE_DIM]))
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
        self.reset_parameters()

    @property
    def use_bias(self) -> bool:
        return self.bias is not None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights N(0, 2 / inputs of a unit), biases 0, ``qz_loga`` N(log(1 / droprate_init - 1), 0.01^2)."""
        self.weights.normal_(0, math.sqrt(2 / self._inputs_of_a_unit()))
        self.qz_loga.normal_(math.log(1 - self.droprate_init) - math.log(self.droprate_init), INIT_SPREAD)
        if self.bias is not None:
            self.bias.zero_()

    def _inputs_of_a_unit(self) -> int:
        raise NotImplementedError

    # -- gates -------------------------------------------------------------------------------------------------------

    def _gate_options(self) -> dict:
        return {"temperature": self.temperature, "gamma": c.GAMMA, "zeta": c.ZETA, "bound": c.LOG_ALPHA_BOUND}

    def _draw_seed(self) -> Tensor:
        return torch.randint(0, 2**63 - 1, (1,), device=self.qz_loga.device)

    def sample_z(self, batch_size: int, sample: bool = True) -> Tensor:
        """Gates z [batch_size, gates]: a draw for each example, or without ``sample`` the test-time gates for all.

        The test-time gate is ``clamp(1.2 sigmoid(qz_loga) - 0.1, 0, 1)``, without temperature.
        """
        if sample:
            return ops.batch_gates(self.qz_loga, self._draw_seed(), batch_size, **self._gate_options())
        return self.test_gates().expand(batch_size, -1)

    def _example_gates(self, input: Tensor, dims: int) -> Tensor:
        """Sampled gates [batch, gates] for an input whose examples have ``dims`` dimensions at least."""
        if input.dim() <= dims:
            raise ValueError(f"input: expected a batch, whose examples get gates of their own, got {list(input.shape)}")
        return self.sample_z(input.shape[0])

    def test_gates(self) -> Tensor:
        """The gates z [gates] of evaluation."""
        return ops.hard_concrete(self.qz_loga, eval_temperature=False, **self._gate_options())

    def masked_parameters(self) -> tuple[Tensor, Tensor | None]:
        """``weights * z`` and the bias, times z too where it belongs to the groups.

        z is one draw for the whole batch in training, and the test-time gate in evaluation.
        """
        seed = self._draw_seed() if self.training else None
        weights = self._masked(self.weights, seed)
        if self.bias is None or not self.bias_is_gated:
            return weights, self.bias
        return weights, self._masked(self.bias, seed)  # the same seed: the same gates

    def _masked(self, parameter: Tensor, seed: Tensor | None) -> Tensor:
        options = {"with_penalty": False, "eval_temperature": False, **self._gate_options()}
        return ops.gated_weight(parameter, self.qz_loga, seed, GATE_DIM, **options)[0]

    def active_probability(self) -> Tensor:
        """p = P(z != 0) of each gate [gates], differentiable; in float32 at least."""
        return reference.active_probability(reference.arithmetic(self.qz_loga), **self._gate_options())

    @torch.no_grad()
    def constrain_parameters(self) -> None:
        """Holds ``qz_loga`` to [log 0.01, log 100], in place: to be called after each optimizer step."""
        self.qz_loga.clamp_(*LOG_ALPHA_RANGE)

    @torch.no_grad()
    def clear_groups(self, closed: Tensor) -> None:
        """Sets the weights of these groups to 0, and their biases where these are gated; closed: bool [gates]."""
        self.weights[closed] = 0
        if self.bias is not None and self.bias_is_gated:
            self.bias[closed] = 0

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the ordinary layer of torch that computes in evaluation what this one does.

        An ungated bias is the parameter itself.
        """
        training, self.training = self.training, False
        try:
            return self.masked_parameters()
        finally:
            self.training = training

    # -- penalties and counts ----------------------------------------------------------------------------------------

    def regularization(self) -> Tensor:
        """The log prior, at most 0, a scalar: ``-sum_g p_g (weight_decay |w_g|^2 / 2 + lamba |g|)`` for groups g.

        An ungated bias (:class:`L0Dense`) adds ``-weight_decay |bias|^2 / 2``; a gated one (:class:`L0Conv2d`) is one
        of its group's |g| weights. The sign is the original authors': add ``-1/N`` times it to a mean loss over N
        examples, as the models do.
        """
        members = self._group_size()
        if self.prior_prec == 0:
            return -self.lamba * members * self.get_l0_penalty()
        cost = 0.5 * self.prior_prec * self._group_squares() + self.lamba * members
        return -(self.active_probability() * cost).sum() - 0.5 * self.prior_prec * self._ungated_squares()

    def get_l0_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar: what :func:`l0fast.compute_l0_penalty` adds up."""
        return ops.l0_penalty(self.qz_loga, **self._gate_options())

    def _group_size(self) -> int:
        return self.weights[GATE_DIM].numel() + int(self.bias_is_gated and self.use_bias)

    def _group_squares(self) -> Tensor:
        squares = reference.arithmetic(self.weights).square().flatten(1).sum(1)
        if self.bias is None or not self.bias_is_gated:
            return squares
        return squares + reference.arithmetic(self.bias).square()

    def _ungated_squares(self) -> Tensor | float:
        return 0.0 if self.bias is None or self.bias_is_gated else reference.arithmetic(self.bias).square().sum()

    @torch.no_grad()
    def count_l0(self) -> float:
        """Expected number of parameters that are not 0, gates not counted: ``sum_g p_g |g|`` and the ungated biases."""
        ungated = self.bias.numel() if self.bias is not None and not self.bias_is_gated else 0
        return self._group_size() * self.get_l0_penalty().item() + ungated

    @torch.no_grad()
    def count_l2(self) -> float:
        """The squares that the weight decay sees: ``sum_g p_g |w_g|^2`` and those of the ungated biases."""
        return float((self.active_probability() * self._group_squares()).sum() + self._ungated_squares())

    def count_expected_flops_and_l0(self) -> tuple[float, float]:
        """Expected multiplications and additions for one example, and :meth:`count_l0`."""
        return self._expected_flops(self.get_l0_penalty().item()), self.count_l0()

    def _expected_flops(self, open_gates: float) -> float:
        raise NotImplementedError


def not_negative(name: str, value) -> float:
    number = as_real(name, value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    return number


def checked_droprate(name: str, value) -> float:
    """Strictly between 0 and 1: at the ends the initial logit of the gates would be infinite."""
    number = as_real(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name}: expected a probability strictly between 0 and 1, got {value}")
    return number
