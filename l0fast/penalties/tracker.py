"""A record of numbers by name over a training run."""

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from numbers import Real
from pathlib import Path

import numpy as np
from torch import Tensor

from .._atomic import atomic_write

REPORT_HINT = 'plotting needs matplotlib: python -m pip install "l0fast[report]"'


class PenaltyTracker:
    """Penalties, losses and any other numbers, logged by name; each name has a history of its own length.

    Attributes:
        history: name -> list of floats, in the order of logging.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = defaultdict(list)

    def log(self, name: str, value: float) -> None:
        """Appends a number to the history of ``name``, as a float.

        Args:
            name: any string.
            value: a number, or a tensor or array of one element (its graph is not kept).

        Raises:
            TypeError: name is no string, or value no number. ValueError: value has more than one element.
        """
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {type(name).__name__}")
        if isinstance(value, Tensor | np.ndarray):
            if math.prod(value.shape) != 1:
                raise ValueError(f"value: expected one element, got shape {list(value.shape)}")
            value = value.item()
        if not isinstance(value, Real):
            raise TypeError(f"value: expected a number, got {type(value).__name__} ({value!r})")
        self.history[name].append(float(value))

    def get_history(self, name: str) -> list[float]:
        """What was logged under ``name``, in order; an empty list for an unknown name."""
        return self.history.get(name, [])

    def get_stats(self, name: str) -> dict[str, float]:
        """'mean', 'std' (over n), 'min', 'max' and 'last' of a history; nothing where there is none."""
        values = self.get_history(name)
        if not values:
            return {}
        return {
            "mean": float(np.mean(values)),
            "std": float(np.std(values)),
            "min": float(np.min(values)),
            "max": float(np.max(values)),
            "last": values[-1],
        }

    def clear(self) -> None:
        """Forgets all histories."""
        self.history.clear()

    def save_to_csv(self, filepath: str | os.PathLike) -> None:
        """Writes a column for each name and a row for each step; shorter histories end in empty cells.

        The file appears whole or not at all. Numbers are written in full; not-a-number is ``nan``.

        Raises:
            OSError: the folder is missing or not writable.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.history)
        writer.writerows(zip_longest(*self.history.values(), fillvalue=""))
        atomic_write(filepath, text.getvalue().encode())

    def plot_history(self, metrics: Sequence[str] | None = None, save_path: str | os.PathLike | None = None) -> None:
        """A panel for each history, shown, or written to a file whose suffix says the format.

        Args:
            metrics: the names to plot; None or empty for all.
            save_path: where to write; None shows the figure with pyplot.

        Raises:
            ImportError: matplotlib is missing (the extra ``report``).
            TypeError, ValueError: metrics is a string, names something unknown, or nothing has been logged.
            OSError: the folder is missing or not writable.
        """
        metrics = self._known(metrics)
        size = (10, 4 * len(metrics))
        try:
            from matplotlib.figure import Figure

            if save_path is None:
                import matplotlib.pyplot as plt

                figure = plt.figure(figsize=size)
            else:
                figure = Figure(figsize=size)  # not pyplot's: nothing stays open
        except ImportError as error:
            raise ImportError(REPORT_HINT) from error
        for axes, metric in zip(figure.subplots(len(metrics), squeeze=False)[:, 0], metrics, strict=True):
            axes.plot(self.history[metric])
            axes.set(title=metric, xlabel="Step", ylabel="Value")
            axes.grid(True)
        figure.tight_layout()
        if save_path is None:
            plt.show()
        else:
            _save_figure(figure, save_path)

    def _known(self, metrics: Sequence[str] | None) -> list[str]:
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a list of names, got the string {metrics!r}")
        if not self.history:
            raise ValueError("metrics: expected something to plot, got an empty history: log() comes first")
        unknown = sorted(set(metrics or ()) - set(self.history))
        if unknown:
            raise ValueError(f"metrics: expected names among {sorted(self.history)}, got {unknown}")
        return list(metrics or self.history)


def _save_figure(figure, target) -> None:
    if not isinstance(target, str | os.PathLike):
        figure.savefig(target)  # an open file, which matplotlib takes too
        return
    path = Path(target)
    path = path if path.suffix else path.with_name(f"{path.name}.png")  # as matplotlib itself names it
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    atomic_write(path, content.getvalue())
