"""The fit of a calibration model: its arguments, checked, and the order in which its parts run."""

from typing import TYPE_CHECKING

from .budget import DEFAULT_LAMBDA_L0, checked_budget, gate_price
from .chunks import FitOptions
from .objective import build_objective
from .refit import check_refit, refit_weights
from .schedule import checked_schedule
from .stopping import checked_stopping
from .trainer import train

if TYPE_CHECKING:
    from .model import SparseCalibrationWeights


class FitMethods:
    """:meth:`fit` of SparseCalibrationWeights."""

    def fit(
        self,
        M,
        y,
        lambda_l0: float = DEFAULT_LAMBDA_L0,
        lambda_l2: float = 0.0,
        lr: float = 0.01,
        epochs: int = 1000,
        loss_type: str = "mse",
        verbose: bool | str = False,
        verbose_freq: int = 100,
        target_groups=None,
        normalize_groups: bool = True,
        group_multipliers: dict | None = None,
        *,
        target_weights=None,
        target_scales=None,
        target_tolerances=None,
        loss_cap: float = 1.0,
        callback=None,
        resume: bool = False,
        checkpoint=None,
        checkpoint_freq: int = 100,
        target_records: int | None = None,
        exact: bool = False,
        lambda_share: float | None = None,
        refit: bool = False,
        tol: float | None = None,
        patience: int | None = None,
        schedule: str = "constant",
    ) -> "SparseCalibrationWeights":
        """Fits the weights with Adam, whole epochs at a time in compiled code.

        Args:
            M: matrix [n_targets, n_features], any format that :func:`l0fast.calibration.matrix.pack` takes.
            y: targets [n_targets].
            lambda_l0: price of an open gate, at least 0.
            lambda_l2: price of a squared weight, at least 0.
            lr: Adam's step, at least 0.
            epochs: how many to run.
            loss_type: 'mse' (x = M w - y, x^2), 'relative' (x = (M w - y) / (y + 1), x^2), 'relative_epsilon'
                (x = (M w - y) / max(|y|, 1), max(|x| - tolerance, 0)^2) or 'capped_mape' (the same x, min(|x|, cap),
                weights normalised to sum 1).
            verbose: True prints a line every ``verbose_freq`` epochs; "bar" shows a progress bar on stderr.
            verbose_freq: epochs between lines and between calls of ``callback``, at least 1.
            target_groups: group of each target [n_targets]; None for no groups.
            normalize_groups: divide each target's loss by the size of its group.
            group_multipliers: factor for each group named, after the normalisation.
            target_weights: factor of each target's loss, at least 0: a number or [n_targets].
            target_scales: what a target's error is divided by, not 0, instead of the loss type's own scale.
            target_tolerances: for 'relative_epsilon', at least 0, in units of x.
            loss_cap: for 'capped_mape', above 0: an error beyond it costs no more and has no gradient.
            callback: called as ``callback(epoch, metrics)`` every ``verbose_freq`` epochs and after the last one,
                epoch counted from 1 and metrics a dict of 'loss', 'data_loss', 'expected_active', 'open_gates' (of
                the epoch's draw), 'active', 'mean_error', 'max_error' (of the deterministic weights; errors are
                |y - M w| / |y + 1|).
            resume: continue the model's run (Adam's moments, epoch, noise) for ``epochs`` more: chunks give the very
                bits of one run. The default starts a new run from the present parameters.
            checkpoint: file to save to every ``checkpoint_freq`` epochs, at the end and when interrupted.
            checkpoint_freq: epochs between checkpoints, at least 1.
            target_records: how many records to end with, in [1, n], within 1 % or one record, instead of lambda_l0: the
                price of a gate is then steered (:mod:`l0fast.calibration.budget`). 600 epochs are enough for most; a
                run that misses by more than 5 % warns, and ends with that many all the same.
            exact: end with exactly target_records, the most probable ones.
            lambda_share: lambda_l0 n, instead of lambda_l0: what all n records cost, so that a value means the same
                for a sample and for the whole.
            refit: :meth:`refit` the weights afterwards, with these epochs, lr, lambda_l2 and loss. A checkpoint stays
                that of the run before it.
            tol: end the run early, when ``patience`` epochs have not lowered the objective of the weights without noise
                (:mod:`l0fast.calibration.stopping`) by more than this share of it, in [0, 1); 1e-3 is a start. None
                runs all epochs. :attr:`stopped` tells. Such a run stays ended when resumed with the same two; without
                tol or with more patience it goes on.
            patience: epochs, at least 1 (looked at every 20th); None for 60.
            schedule: 'constant', or 'anneal': gates that are at first twice as soft and four times as dear, and an lr
                that falls to nearly 0 in the second half (:mod:`l0fast.calibration.schedule`). Saves epochs: 400 with
                lr 0.3 do what 1,000 constant ones with lr 0.15 do. An interrupted run that is resumed for the epochs
                that it lacks gives the very bits of one run. Not with target_records.

        Returns:
            The model itself.

        Raises:
            TypeError, ValueError: bad input, by name, before anything has changed; also more than one of lambda_l0,
                lambda_share and target_records.
            MemoryError: the CUDA device has not enough free memory, before packing begins.
            FloatingPointError: the loss left the finite numbers; the parameters are those before that epoch.
            KeyboardInterrupt: within about half a second of Ctrl-C; the run can be resumed.
        """
        price = gate_price(self.n_features, lambda_l0, lambda_share, target_records)
        options = FitOptions(
            *(price, lambda_l2, lr, epochs, loss_type, verbose, verbose_freq),
            *(callback, resume, checkpoint, checkpoint_freq),
        )
        budget = checked_budget(self, target_records, exact)
        stopping = checked_stopping(tol, patience, target_records)
        plan = checked_schedule(self, schedule, options, target_records)
        check_refit(self, refit)
        matrix = self.pack(M, fitting=True)
        objective = build_objective(
            *(y, matrix.n_targets, loss_type),
            target_groups=target_groups,
            normalize_groups=normalize_groups,
            group_multipliers=group_multipliers,
            target_weights=target_weights,
            target_scales=target_scales,
            target_tolerances=target_tolerances,
            loss_cap=loss_cap,
            device=self.log_weight.device,
        )
        train(self, M, matrix, objective, options, budget, stopping, plan)
        if refit:
            refit_weights(self, matrix, objective, options)
        return self
