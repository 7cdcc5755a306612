"""Results of all processes in one place."""

from torch import Tensor

from .group import open_group


def gathered_weights(model, process_group) -> Tensor | None:
    """The deterministic weights [n_total] of all processes on process 0's CPU, in the order of the records.

    Every process of the group calls it.

    Args:
        model: this process's, as :meth:`SparseCalibrationWeights.fit` has left it.
        process_group: that of the fit.

    Returns:
        The weights on process 0, None elsewhere.

    Raises:
        TypeError, ValueError: as :meth:`SparseCalibrationWeights.fit` does for process_group.
        ProcessLostError: another process has ended.
    """
    return open_group(model, process_group).gather(model.get_weights(deterministic=True).detach())
