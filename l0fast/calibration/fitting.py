"""The fit of a calibration model: its arguments, checked, and the order in which its parts run."""

from typing import TYPE_CHECKING

from .budget import DEFAULT_LAMBDA_L0, checked_budget, gate_price
from .chunks import FitOptions
from .constraints import checked_constraints
from .holdout import HoldoutResult, fit_with_holdout
from .l1 import checked_l1, select
from .objective import build_objective
from .plan import RunPlan, run_facts
from .refit import check_refit, refit_weights
from .schedule import checked_schedule
from .sharding.group import open_group, refuse_sharded
from .state import check_parameters
from .stopping import checked_stopping
from .trainer import train

if TYPE_CHECKING:
    from .model import SparseCalibrationWeights


class FitMethods:
    """:meth:`fit` of SparseCalibrationWeights."""

    held_out: HoldoutResult | None = None
    """Of the last fit with ``holdout``."""

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
        exact: bool | str = False,
        lambda_share: float | None = None,
        refit: bool = False,
        bounds=None,
        min_weight: float | None = None,
        max_weight_ratio: float | None = None,
        mass: str = "free",
        anchor=None,
        l1_lambda: float | None = None,
        hierarchy=None,
        holdout=None,
        process_group=None,
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
                |y - M w| / |y + 1|) and 'totals' (their M w, float64 [n_targets]).
            resume: continue the model's run (Adam's moments, epoch, noise) for ``epochs`` more: chunks give the very
                bits of one run. The default starts a new run from the present parameters.
            checkpoint: file to save to every ``checkpoint_freq`` epochs, at the end and when interrupted.
            checkpoint_freq: epochs between checkpoints, at least 1.
            target_records: how many records to end with, in [1, n], within 1 % or one record, instead of lambda_l0: the
                price of a gate is then steered (:mod:`l0fast.calibration.budget`). 600 epochs are enough for most; a
                run that misses by more than 5 % warns, and ends with that many all the same.
            exact: end with exactly target_records: True, the most probable ones; "sampled", as many drawn with
                probabilities proportional to those of their gates (Sampford 1967, :mod:`.sampling`), which
                :attr:`inclusion_probabilities` then has. A refit gives what was drawn its weights.
            lambda_share: lambda_l0 n, instead of lambda_l0: what all n records cost, so that a value means the same
                for a sample and for the whole.
            refit: :meth:`refit` the weights afterwards, with these epochs, lr, lambda_l2 and loss. A checkpoint stays
                that of the run before it.
            bounds: (low, high) of the weights of records kept, each a number or [n_features], high may be infinite.
            min_weight: least weight of a record kept.
            max_weight_ratio: largest weight over initial weight, ``init_weights`` as given.
            mass: "conserve" keeps the sum of the initial weights, "free" does not. Bounds and mass hold exactly for the
                weights returned (:mod:`l0fast.calibration.constraints`), which are folded from the gates: these are
                open or closed for good afterwards, unless the run is resumed.
            anchor: lambda_l2 is then the price of ``(exp(log_weight) / anchor)^2``: "initial", a number or
                [n_features], positive.
            l1_lambda: price of a record with its initial weight, instead of lambda_l0: records are chosen by an L1 norm
                and a proximal step, without gates (:mod:`l0fast.calibration.l1`); the run ends as a refit does.
            hierarchy: parents whose estimates are sums of targets' estimates and that have errors of their own in the
                loss (:mod:`l0fast.calibration.hierarchy`): a Hierarchy, children by parent's label, or the label of
                each target's parent [n_targets], None for none.
            holdout: also say how well targets are met that a fit has not seen: an int K or a
                :class:`.holdout.Holdout`. After the fit, K copies of the model are fitted from the same start, each
                without a K-th of the targets; :attr:`held_out` then has the errors on them, to print or as tables.
            process_group: of torch.distributed (gloo, or NCCL on CUDA devices), for a model of this process's records
                (``shard=``). M has the columns of these records; all else, y and the options too, is the same in all
                processes, and every one of them calls fit. An epoch adds up the totals of all in one all-reduce of
                n_targets + 3 doubles; the number of processes changes nothing but the order of that sum. Process 0
                alone prints, is called back and writes the checkpoint, which any number of processes can resume; it
                also does so after the first epochs. See docs/many_processes.md.
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
                lambda_share, target_records and l1_lambda, and bounds that the total cannot be reached with.
            MemoryError: the CUDA device has not enough free memory, before packing begins.
            FloatingPointError: the loss left the finite numbers; the parameters are those before that epoch.
            KeyboardInterrupt: within about half a second of Ctrl-C (with process_group also of SIGTERM, in all
                processes after the same epoch); the run can be resumed.
            sharding.PeerError: another process has refused its input or could not write the checkpoint.
            sharding.ProcessLostError: another process has ended; the message names the last checkpoint. This process's
                model is then somewhere within an epoch.
        """
        if holdout is not None:
            given = {name: x for name, x in locals().items() if name not in ("self", "M", "y", "holdout")}
            fit_with_holdout(self, M, y, holdout, given)
            return self
        group = open_group(self, process_group)
        with group.agreed():
            held = {"bounds": bounds, "min_weight": min_weight, "max_weight_ratio": max_weight_ratio, "mass": mass}
            refuse_sharded(group, **held, l1_lambda=l1_lambda)
            price = gate_price(group.n_total, lambda_l0, lambda_share, target_records, l1_lambda)
            options = FitOptions(
                *(price, lambda_l2, lr, epochs, loss_type, verbose, verbose_freq),
                *(callback, resume, checkpoint, checkpoint_freq),
            )
            log_alpha = self._gates_of_run(resume)
            plan = RunPlan(
                group,
                checked_budget(self, target_records, exact, group, log_alpha),
                checked_constraints(
                    *(self, bounds, min_weight, max_weight_ratio, mass, anchor, target_records, log_alpha)
                ),
                checked_stopping(tol, patience, target_records),
                checked_schedule(self, schedule, options, target_records),
            )
            if exact == "sampled" and mass != "free":
                raise ValueError("mass: expected 'free' with exact='sampled', which leaves the records to chance")
            check_refit(self, refit)
            l1_price = checked_l1(self, l1_lambda, options, plan)
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
                hierarchy=hierarchy,
                device=self.log_weight.device,
            )
            check_parameters(log_weight=self.log_weight, log_alpha=self.log_alpha)
        group.check_same(run_facts(self, matrix, objective, options, plan, refit=refit, tol=tol, patience=patience))
        if l1_price is None:
            train(self, M, matrix, objective, options, plan)
        else:
            select(self, matrix, objective, options, l1_price, plan.constraints)
        if refit:
            refit_weights(self, matrix, objective, options, group, plan.constraints)
        return self

    def _gates_of_run(self, resume: bool):
        """log_alpha [n] that a run starts from, None for the model's: what bounds and mass have done is taken back."""
        run = self._run if resume else None
        return None if run is None or run.unprojected is None else run.unprojected[1]
