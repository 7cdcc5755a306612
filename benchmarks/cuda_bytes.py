"""The bytes that each op has to move at the least: every input read once, every output written once.

This is the only place where they are counted. Noise, seeds and scalars count as nothing: noise is computed, not read.

For a tensor of n gates of four bytes each, in tensors of n read plus tensors of n written:

    copy            forward   source; target
    hard_concrete   forward   log_alpha; z
                    backward  grad_z, log_alpha; grad
    l0_penalty      forward   log_alpha; -
                    backward  log_alpha; grad
    gated_weight    forward   weight, log_alpha; v            (the penalty is added up on the way)
                    backward  grad_v, weight, log_alpha; grad_weight, grad_log_alpha

A step is forward and backward. A calibration epoch: problems.EpochBytes, two passes over the open columns and the
state of all records.
"""

from problems import EpochBytes

TENSORS = {
    ("copy", "forward"): 2,
    ("hard_concrete", "forward"): 2,
    ("hard_concrete", "backward"): 3,
    ("l0_penalty", "forward"): 1,
    ("l0_penalty", "backward"): 2,
    ("gated_weight", "forward"): 3,
    ("gated_weight", "backward"): 5,
}


def elementwise_bytes(op: str, mode: str, gates: int, itemsize: int = 4) -> int:
    """Of one call with so many gates; mode 'forward', 'backward' or 'step'."""
    parts = ("forward", "backward") if mode == "step" else (mode,)
    return sum(TENSORS[op, part] for part in parts) * gates * itemsize


def epoch_bytes(problem, open_share: float) -> int:
    """Of a calibration epoch in two passes over a problem of cuda_problems.py."""
    arrays = (problem.rows.nbytes, problem.values.nbytes, problem.indptr.nbytes)
    return EpochBytes.of(*arrays, problem.n_records, open_share).two_pass
