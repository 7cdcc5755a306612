"""What a run shows while it goes: callback, printed lines, progress bar."""

import itertools

import numpy as np
import torch
from torch import Tensor

WEIGHT_BINS = (0.01, 0.1, 1, 10, 1000)


class Reporter:
    """Looks at a run every verbose_freq epochs; a context manager, because of the progress bar."""

    task = "fitting"

    def __init__(self, model, options):
        self.model, self.options = model, options
        self.bar = None

    def __enter__(self):
        if self.options.verbose is True and (line := self.opening()):
            print(line)
        elif self.options.verbose == "bar":
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.options.epochs, unit="epoch", desc=self.task)
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def after(self, epochs: int, last: bool) -> None:
        """Called when ``epochs`` more are done; looks only where somebody asked for it."""
        options = self.options
        if self.bar is not None:
            self.bar.update(epochs)
        regular = self.model.epoch % options.verbose_freq == 0
        wanted = options.callback is not None and (regular or last)
        if not wanted and not (options.verbose and regular):
            return
        metrics = self.metrics()
        if options.verbose is True and regular:
            print(self.line(metrics))
        if self.bar is not None:
            self.bar.set_postfix(self.postfix(metrics))
        if wanted:
            options.callback(self.model.epoch, metrics)

    def metrics(self) -> dict:
        """What the callback gets: here, of the last epoch."""
        last = self.model._run.metrics[-1][-1]
        return {
            "loss": float(last[0]),
            "data_loss": float(last[1]),
            "expected_active": float(last[2]),
            "open_gates": int(last[3]),
        }

    def opening(self) -> str | None:
        """A line before the first epoch."""
        return None

    def line(self, metrics: dict) -> str:
        raise NotImplementedError

    def postfix(self, metrics: dict) -> dict:
        """What stands behind the progress bar."""
        raise NotImplementedError


class CalibrationReporter(Reporter):
    task = "calibrating"

    def __init__(self, model, options, M, objective):
        super().__init__(model, options)
        self.M, self.objective = M, objective

    def metrics(self) -> dict:
        self.weights, self.errors = self._deterministic()
        return {
            **super().metrics(),
            "active": int((self.weights > 0).sum()),
            "mean_error": float(self.errors.mean()),
            "max_error": float(self.errors.max()),
        }

    def postfix(self, metrics: dict) -> dict:
        return {"error": f"{metrics['mean_error']:.3%}", "active": metrics["active"]}

    def _deterministic(self) -> tuple[Tensor, Tensor]:
        """Weights [n_records] without noise and relative errors [n_targets] |y - M w| / |y + 1|, as l0-python's."""
        with torch.no_grad():
            weights = self.model.get_weights(deterministic=True)
            totals = self.model.predict(self.M).double()
        targets = self.objective.targets
        # A target of -1 has no such error; max(|y + 1|, tiny) keeps the report finite where the loss allows it.
        return weights, (targets - totals).abs() / (targets + 1).abs().clamp(min=1e-300)

    def opening(self) -> str:
        groups = self.objective.groups
        if groups is None:
            return "Groups: none (uniform weights)"
        return f"Groups: {groups.max() + 1} groups"

    def line(self, metrics: dict) -> str:
        weights, errors = self.weights, self.errors
        label, mean = "mean_error", metrics["mean_error"]
        if self.objective.groups is not None:
            label = "mean_group_mare"
            groups = self.objective.groups
            sums = np.bincount(groups, weights=errors.cpu().numpy())
            mean = float((sums / np.bincount(groups)).mean())
        n = weights.numel()
        return (
            f"Epoch {self.model.epoch:4d}: {label}={mean:.4%}, max_error={metrics['max_error']:.1%}, "
            f"total_loss={metrics['loss']:.3f}, active={metrics['active']:4d}/{n} "
            f"({100 * (1 - metrics['active'] / n):.1f}% sparse)\n         Weight dist: {_distribution(weights)}"
        )


def _distribution(weights: Tensor) -> str:
    active = weights[weights > 0].cpu().numpy()
    if active.size == 0:
        return "[no active weights]"
    counts = np.bincount(np.searchsorted(WEIGHT_BINS, active, side="right"), minlength=len(WEIGHT_BINS) + 1)
    ends = [f"{edge:g}" for edge in WEIGHT_BINS]
    names = [f"<{ends[0]}", *(f"{a}-{b}" for a, b in itertools.pairwise(ends)), f">{ends[-1]}"]
    return "[" + ", ".join(f"{name}: {100 * k / active.size:.1f}%" for name, k in zip(names, counts, strict=True)) + "]"
