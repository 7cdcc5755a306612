"""What a run shows while it goes: callback, printed lines, progress bar."""

import itertools

import numpy as np
import torch
from torch import Tensor

WEIGHT_BINS = (0.01, 0.1, 1, 10, 1000)


class Reporter:
    """Looks at a run every verbose_freq epochs; a context manager, because of the progress bar."""

    task = "fitting"

    shown = True
    """Whether this process shows anything."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        self.bar = None

    def __enter__(self):
        if self.options.verbose is True and self.shown and (line := self.opening()):
            print(line)
        elif self.options.verbose == "bar" and self.shown:
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
        if not self.shown:
            return
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

    def __init__(self, model, options, M, objective, group):
        super().__init__(model, options)
        self.M, self.objective, self.group, self.shown = M, objective, group, group.is_first

    def metrics(self) -> dict:
        """Of all processes: each of them has to ask."""
        weights, totals = self._deterministic()
        targets = self.objective.targets
        # A target of -1 has no such error; max(|y + 1|, tiny) keeps the report finite where the loss allows it.
        self.errors = (targets - totals).abs() / (targets + 1).abs().clamp(min=1e-300)
        self.counts = self.group.sum(*_counts(weights))
        return {
            **super().metrics(),
            "active": sum(self.counts),
            "mean_error": float(self.errors.mean()),
            "max_error": float(self.errors.max()),
            "totals": totals.cpu().numpy(),
        }

    def postfix(self, metrics: dict) -> dict:
        return {"error": f"{metrics['mean_error']:.3%}", "active": metrics["active"]}

    def _deterministic(self) -> tuple[Tensor, Tensor]:
        """This process's weights without noise, and the totals M w [n_targets] of all, float64."""
        with torch.no_grad():
            weights = self.model.get_weights(deterministic=True)
            totals = self.model.predict(self.M).double()
        return weights, self.group.together(totals) if self.group.sharded else totals

    def opening(self) -> str:
        groups = self.objective.groups
        if groups is None:
            return "Groups: none (uniform weights)"
        return f"Groups: {groups.max() + 1} groups"

    def line(self, metrics: dict) -> str:
        label, mean = "mean_error", metrics["mean_error"]
        if self.objective.groups is not None:
            label = "mean_group_mare"
            groups = self.objective.groups
            sums = np.bincount(groups, weights=self.errors.cpu().numpy())
            mean = float((sums / np.bincount(groups)).mean())
        n = self.group.n_total
        return (
            f"Epoch {self.model.epoch:4d}: {label}={mean:.4%}, max_error={metrics['max_error']:.1%}, "
            f"total_loss={metrics['loss']:.3f}, active={metrics['active']:4d}/{n} "
            f"({100 * (1 - metrics['active'] / n):.1f}% sparse)\n         Weight dist: {_distribution(self.counts)}"
        )


def _counts(weights: Tensor) -> list[int]:
    """Records in use, by the WEIGHT_BINS."""
    places = np.searchsorted(WEIGHT_BINS, weights[weights > 0].cpu().numpy(), side="right")
    return np.bincount(places, minlength=len(WEIGHT_BINS) + 1).tolist()


def _distribution(counts: tuple[int, ...]) -> str:
    active = sum(counts)
    if active == 0:
        return "[no active weights]"
    ends = [f"{edge:g}" for edge in WEIGHT_BINS]
    names = [f"<{ends[0]}", *(f"{a}-{b}" for a, b in itertools.pairwise(ends)), f">{ends[-1]}"]
    return "[" + ", ".join(f"{name}: {100 * k / active:.1f}%" for name, k in zip(names, counts, strict=True)) + "]"
