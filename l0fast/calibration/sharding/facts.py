"""The preflight's facts of a matrix whose columns lie in many processes."""

import numpy as np
import torch

from ..row_facts import RowFacts
from .processes import Processes


def merged_facts(facts: RowFacts, processes: Processes) -> RowFacts:
    """The facts of all columns together. ``used`` is whole on process 0 alone, elsewhere this process's own."""

    def reduced(column: np.ndarray, how: str) -> np.ndarray:
        return processes.reduced(torch.from_numpy(column), how).numpy()

    def extreme(column: np.ndarray, how: str, nothing: float) -> np.ndarray:
        # A part without entries in a row has no say; nor is NaN an order to take part in: its row is bad anyhow.
        found = reduced(np.where(facts.nonzeros > 0, np.nan_to_num(column), nothing), how)
        return np.where(found == nothing, 0.0, found)

    used = processes.gather(torch.from_numpy(facts.used.view(np.uint8)))
    return RowFacts(
        nonzeros=reduced(facts.nonzeros, "sum"),
        bad=reduced(facts.bad, "sum"),
        least=extreme(facts.least, "min", np.inf),
        largest=extreme(facts.largest, "max", -np.inf),
        hash=reduced(facts.hash.view(np.int64), "sum").view(np.uint64),
        used=facts.used if used is None else used.numpy().view(bool),
    )
