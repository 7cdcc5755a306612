"""The preflight's facts of a matrix whose columns lie in many processes."""

import numpy as np
import torch

from ..row_facts import RowFacts
from .processes import Processes


def merged_facts(facts: RowFacts, processes: Processes) -> RowFacts:
    """The facts of all columns together. ``used`` is whole on process 0 alone, elsewhere this process's own."""

    def reduced(column: np.ndarray, how: str) -> np.ndarray:
        return processes.reduced(torch.from_numpy(column), how).numpy()

    used = processes.gather(torch.from_numpy(facts.used.view(np.uint8)))
    return RowFacts(
        nonzeros=reduced(facts.nonzeros, "sum"),
        bad=reduced(facts.bad, "sum"),
        # NaN is no order to take part in: rows with one are bad, whatever else they hold.
        least=reduced(np.nan_to_num(facts.least), "min"),
        largest=reduced(np.nan_to_num(facts.largest), "max"),
        hash=reduced(facts.hash.view(np.int64), "sum").view(np.uint64),
        used=facts.used if used is None else used.numpy().view(bool),
    )
