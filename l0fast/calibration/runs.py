"""What a calibration model does with a run besides fitting: refit, frontier, checkpoints."""

import numpy as np

from . import checkpoint as checkpoints
from .chunks import FitOptions
from .constraints import checked_constraints
from .frontier import FrontierPoint, frontier
from .objective import build_objective
from .plan import RunPlan, run_facts
from .refit import check_refit, refit_weights
from .sharding.group import open_group, refuse_sharded


class RunMethods:
    """Methods of SparseCalibrationWeights."""

    @property
    def stopped(self) -> bool:
        """Whether ``tol`` and ``patience`` ended the last :meth:`fit`, at :attr:`epoch`."""
        return self._run is not None and self._run.stopped

    @property
    def inclusion_probabilities(self) -> np.ndarray | None:
        """After a fit with ``exact="sampled"``: float64 [n_features], summing to target_records; else None.

        Dividing a drawn record's value by its probability makes totals unbiased (Horvitz-Thompson).
        """
        inclusion = None if self._run is None else self._run.inclusion
        return None if inclusion is None else inclusion.numpy().copy()

    def refit(
        self,
        M,
        y,
        epochs: int = 300,
        lr: float = 0.1,
        lambda_l2: float = 0.0,
        loss_type: str = "mse",
        *,
        bounds=None,
        min_weight: float | None = None,
        max_weight_ratio: float | None = None,
        mass: str = "free",
        anchor=None,
        process_group=None,
        **loss_options,
    ):
        """Trains the weights of the records in use once more, without gates, on the matrix of these records alone.

        A gate scales a weight down and its noise blurs the loss; without both, the same records meet the targets
        better. The weights start where they are; lr falls to nearly 0 along half a cosine; what is kept is the best of
        the start and of the ends of ten equal parts, so that the data loss never rises. Afterwards the gates of these
        records are always open and all others always closed (weight exactly 0; their log_weight is not touched), and
        the run can no longer be resumed. An epoch costs what the columns of these records cost.

        Args:
            M, y: as in :meth:`fit`.
            epochs: at least 0.
            lr: Adam's first step, at least 0.
            lambda_l2: price of a squared weight, at least 0.
            loss_type, process_group: as in :meth:`fit`.
            bounds, min_weight, max_weight_ratio, mass, anchor: as in :meth:`fit`; those of the run before have to be
                given again. Records are opened, with a warning, where the bounds of those in use cannot carry the mass,
                and what is exact in the end may cost a little of the loss.
            **loss_options: target_groups, normalize_groups, group_multipliers, target_weights, target_scales,
                target_tolerances, loss_cap, hierarchy, as in :meth:`fit`.

        Returns:
            The model itself.

        Raises:
            TypeError, ValueError: bad input, by name, before anything has changed; also no record in use, or a model
                without gates or with overridden methods.
            FloatingPointError: the loss left the finite numbers; the model has the weights from before.
            KeyboardInterrupt: the model has the best weights so far.
        """
        options = FitOptions(0.0, lambda_l2, lr, epochs, loss_type, False, 1, None, False, None, 1)
        group = open_group(self, process_group)
        with group.agreed():
            held = {"bounds": bounds, "min_weight": min_weight, "max_weight_ratio": max_weight_ratio, "mass": mass}
            refuse_sharded(group, **held)
            check_refit(self, True)
            constraints = checked_constraints(self, bounds, min_weight, max_weight_ratio, mass, anchor)
            matrix = self.pack(M, fitting=True)
            objective = build_objective(y, matrix.n_targets, loss_type, device=self.log_weight.device, **loss_options)
        group.check_same(run_facts(self, matrix, objective, options, RunPlan(group, constraints=constraints)))
        refit_weights(self, matrix, objective, options, group, constraints)
        return self

    def path(self, records, M, y, epochs: int = 600, **options) -> list[FrontierPoint]:
        """What fewer records cost: one point for each budget, from large to small, each starting where the last ended.

        The first budget takes a new run from the present parameters, the others continue it (``resume=True``, so no
        new jitter and no cold moments). The model ends at the last point.

        Args:
            records: budgets, decreasing, each in [1, n].
            M, y: as in :meth:`fit`.
            epochs: for each budget.
            **options: of :meth:`fit`, other than lambda_l0, lambda_share, target_records, l1_lambda and resume. With
                ``refit=True`` each point has the refitted weights, while the path itself goes on with the gates; the
                model then ends with the last point's refitted weights.

        Returns:
            One :class:`FrontierPoint` for each budget. :func:`.report_figures.plot_frontier` draws them.

        Raises:
            TypeError, ValueError: bad input, by name, before anything has changed.
        """
        return frontier(self, records, M, y, epochs, options)

    def save_checkpoint(self, path, process_group=None) -> None:
        """Writes parameters, optimizer, epoch, noise and history to a safetensors file, atomically.

        With process_group, that of the fit, every process calls it and process 0 writes one file for all.

        Raises:
            ValueError: there is no run to save.
            OSError: the file cannot be written; an older one at path is then as it was.
        """
        checkpoints.save_anywhere(self, path, process_group)

    def load_checkpoint(self, path):
        """Takes over the run in a file of :meth:`save_checkpoint`; ``fit(..., resume=True)`` continues it.

        That call then refuses another matrix, other targets or other options than the saved run's, by name. A model
        of a shard takes its records' part of the file, however many processes have written it.

        Raises:
            ValueError: not such a file, or one of a model with other constructor options, by name.
            OSError: the file cannot be read.
        """
        checkpoints.load(self, path)
        return self
