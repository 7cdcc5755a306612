"""The expected number of open gates of many tensors at once. Kernels: l0_penalties in csrc/cpu and csrc/cuda."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import constants as c
from .. import reference
from ._common import check_real, fake, gradients, kernel_for, needs_gradient


def l0_penalties(
    log_alphas: Sequence[Tensor],
    temperatures: Sequence[float],
    gammas: Sequence[float],
    zetas: Sequence[float],
    bound: float = c.LOG_ALPHA_BOUND,
) -> Tensor:
    """sum_k sum P(z_k != 0): :func:`l0fast.ops.l0_penalty` of every tensor, summed, in one call.

    The blocks of all tensors are spread over the threads together, and one call of backward gives all gradients.

    Args:
        log_alphas: at least one tensor; all float32 or all float64, on one device, each of any shape.
        temperatures: beta > 0 of each tensor.
        gammas: below 0, one for each tensor.
        zetas: above 1, one for each tensor.
        bound: every log_alpha is held to [-bound, bound].

    Returns:
        A scalar of the dtype of ``log_alphas``, between 0 and their number of elements; summed in float64 in an order
        that does not depend on the number of threads.

    Raises:
        TypeError: log_alphas is no sequence of tensors of one dtype and device.
        ValueError: there is none, or a list of another length, or one of the numbers is out of range.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equation 12.
    """
    log_alphas = _checked_tensors(log_alphas)
    shapes = (list(temperatures), list(gammas), list(zetas))
    _check_numbers("temperatures", shapes[0], len(log_alphas), lambda x: x > 0, "a positive number")
    _check_numbers("gammas", shapes[1], len(log_alphas), lambda x: x < 0, "a negative number")
    _check_numbers("zetas", shapes[2], len(log_alphas), lambda x: x > 1, "a number above 1")
    if not bound > 0:
        raise ValueError(f"bound: expected a positive number, got {bound}")
    if not kernel_for(log_alphas[0]):
        return reference.l0_penalties(log_alphas, *shapes, bound)
    log_alphas = [x.contiguous() for x in log_alphas]
    if needs_gradient(*log_alphas):
        return _L0Penalties.apply((*shapes, bound), *log_alphas)
    return torch.ops.l0fast.l0_penalties(log_alphas, *shapes, bound)


def _checked_tensors(log_alphas) -> list[Tensor]:
    if isinstance(log_alphas, Tensor) or not isinstance(log_alphas, Sequence):
        raise TypeError(f"log_alphas: expected a list of tensors, got {type(log_alphas).__name__}")
    if not log_alphas:
        raise ValueError("log_alphas: expected at least one tensor, got none")
    first = log_alphas[0]
    for k, x in enumerate(log_alphas):
        check_real(f"log_alphas[{k}]", x)
        if x.dtype != first.dtype or x.device != first.device:
            expected = f"{first.dtype} on {first.device} as the first has"
            raise TypeError(f"log_alphas[{k}]: expected {expected}, got {x.dtype} on {x.device}")
    return list(log_alphas)


def _check_numbers(name: str, numbers: list, count: int, in_range, expected: str) -> None:
    if len(numbers) != count:
        raise ValueError(f"{name}: expected {count} numbers, one for each tensor, got {len(numbers)}")
    for k, number in enumerate(numbers):
        if not in_range(number):
            raise ValueError(f"{name}[{k}]: expected {expected}, got {number}")


class _L0Penalties(torch.autograd.Function):
    @staticmethod
    def forward(scalars, *log_alphas):
        return torch.ops.l0fast.l0_penalties(log_alphas, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.scalars, *log_alphas = inputs
        ctx.save_for_backward(*log_alphas)

    @staticmethod
    def backward(ctx, grad):
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[1:]) if needed]  # frozen gates cost no pass
        *shapes, bound = ctx.scalars
        log_alphas, *shapes = [[values[k] for k in wanted] for values in (ctx.saved_tensors, *shapes)]

        def kernel(*tensors):
            *log_alphas, grad = tensors
            return torch.ops.l0fast.l0_penalties_backward(grad, log_alphas, *shapes, bound)

        def forward(*log_alphas):
            return (reference.l0_penalties(log_alphas, *shapes, bound),)

        results: list[Tensor | None] = [None] * len(ctx.saved_tensors)
        for k, gradient in zip(wanted, gradients(kernel, forward, log_alphas, (grad,)), strict=True):
            results[k] = gradient
        return None, *results


@fake("l0_penalties")
def _(log_alphas, *scalars):
    return log_alphas[0].new_empty(())


@fake("l0_penalties_backward")
def _(grad, log_alphas, *scalars):
    return [torch.empty_like(x) for x in log_alphas]
