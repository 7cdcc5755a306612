"""An exponential moving average of a model's parameters, for evaluation: torch's AveragedModel, bias corrected."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .._checks import as_real


def unbiased_ema(averages: list[Tensor], parameters: list[Tensor], count: Tensor, decay: float) -> None:
    """In place: the mean of p_1 to p_t with weights ``decay^(t-k)``, t = count + 1, from that of p_1 to p_(t-1).

    The same as an average that starts from 0 and is divided by ``1 - decay^t``; the first one is p_1 itself.
    """
    step = int(count) + 1
    torch._foreach_lerp_(averages, parameters, (1 - decay) / (1 - decay**step))


class AveragedParameters(nn.Module):
    """A module that keeps an average of its parameters beside them, under the original authors' method names.

    The average is no part of the state_dict, whose keys stay those of the original code: save and load
    ``model.averaged.state_dict()`` beside it. Copies and ``.to()`` take it along.

    Args:
        beta_ema: decay of the average in [0, 1); 0 for none.
    """

    def __init__(self, beta_ema: float):
        super().__init__()
        self.beta_ema = as_real("beta_ema", beta_ema)
        if not 0 <= self.beta_ema < 1:
            raise ValueError(f"beta_ema: expected a decay in [0, 1), got {beta_ema}")
        self.__dict__["_averaged"] = None  # past nn.Module: a registered copy of the model would double every key

    @property
    def averaged(self) -> AveragedModel | None:
        """The average as a model (``averaged.module``); None where beta_ema is 0. Made at the first use."""
        if self._averaged is None and self.beta_ema > 0:
            average = partial(unbiased_ema, decay=self.beta_ema)
            self.__dict__["_averaged"] = AveragedModel(self, multi_avg_fn=average)
        return self._averaged

    @property
    def steps_ema(self) -> int:
        """How many updates the average has seen."""
        return 0 if self._averaged is None else int(self._averaged.n_averaged)

    def update_ema(self) -> None:
        """Takes the parameters as they are into the average: to be called after each optimizer step.

        Raises:
            RuntimeError: beta_ema is 0.
        """
        self._average("update_ema").update_parameters(self)

    def load_ema_params(self) -> None:
        """Replaces the parameters by their average; keep :meth:`get_params` first to come back.

        Raises:
            RuntimeError: beta_ema is 0, or there was no :meth:`update_ema` yet.
        """
        averaged = self._average("load_ema_params")
        if self.steps_ema == 0:
            raise RuntimeError("load_ema_params: expected at least one update_ema before, got none")
        self.load_params(list(averaged.module.parameters()))

    def get_params(self) -> list[Tensor]:
        """Copies of the parameters, in the order of ``parameters()``."""
        return [parameter.detach().clone() for parameter in self.parameters()]

    @torch.no_grad()
    def load_params(self, params: list[Tensor]) -> None:
        """Writes what :meth:`get_params` gave into the parameters.

        Raises:
            ValueError: another number of tensors or another shape; nothing is written then.
        """
        own = list(self.parameters())
        if [p.shape for p in own] != [p.shape for p in params]:
            raise ValueError(
                f"params: expected tensors of the shapes {[list(p.shape) for p in own]}, "
                f"got {[list(p.shape) for p in params]}"
            )
        for parameter, value in zip(own, params, strict=True):
            parameter.copy_(value)

    def _average(self, method: str) -> AveragedModel:
        if self.averaged is None:
            raise RuntimeError(f"{method}: expected a model with beta_ema > 0, got beta_ema = 0: it keeps no average")
        return self.averaged

    def _apply(self, fn, recurse=True):
        if self._averaged is not None:
            self._averaged._apply(fn, recurse)
        return super()._apply(fn, recurse)
