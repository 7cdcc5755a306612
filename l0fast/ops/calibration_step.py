"""One epoch of calibration whose residuals come from outside. Kernels: calibration_step in csrc."""

from .. import reference


def calibration_step_(*args, **options):
    return reference.calibration_step_(*args, **options)
