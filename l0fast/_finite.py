"""NaN and infinity among a model's parameters, reported by name on request."""

import torch
from torch import nn

from ._modules import checked_model


@torch.no_grad()
def check_finite(model: nn.Module) -> None:
    """Nothing, unless a parameter holds NaN or infinity: call it after a step, or every so many.

    Layers never hide such a value: a NaN weight or gate shows as NaN in the output, a NaN gate in the penalty too.

    Args:
        model: any module, with its parameters on any device (one pass over each, and a synchronisation).

    Raises:
        TypeError: model is no module.
        ValueError: the first parameter, in the order of ``named_parameters()``, that is not finite: its name, how many
            of its values are not, and the index and value of the first; or that it lies on the meta device.
    """
    for name, parameter in checked_model(model).named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name}: expected finite numbers, got a parameter on the meta device, which has none")
        finite = torch.isfinite(parameter)
        if not finite.all():
            bad = (~finite).nonzero()
            index = bad[0].tolist()
            raise ValueError(
                f"{name}: expected finite numbers, got {parameter[tuple(index)].item()} at {index} "
                f"({len(bad)} of {parameter.numel()} are not finite)"
            )
