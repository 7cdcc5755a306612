"""What a run does besides running its epochs, and what identifies it."""

from dataclasses import dataclass

from .budget import RecordBudget
from .chunks import FitOptions
from .constraints import WeightConstraints
from .constraints import signature as constraints_signature
from .matrix import PackedMatrix
from .objective import Objective
from .schedule import Schedule
from .sharding.group import Alone, ShardGroup
from .stopping import EarlyStopping


@dataclass(frozen=True)
class RunPlan:
    """Each None where nobody asked for it."""

    group: Alone | ShardGroup
    budget: RecordBudget | None = None
    constraints: WeightConstraints | None = None
    stopping: EarlyStopping | None = None
    schedule: Schedule | None = None


def run_signature(objective: Objective, options: FitOptions, plan: RunPlan) -> dict:
    """What a resumed run must have in common with its checkpoint besides M, by the name that fit gives it."""
    fitted = {name: getattr(options, name) for name in ("lambda_l0", "lambda_l2", "lr", "loss_type")}
    target = None if plan.budget is None else plan.budget.target
    if plan.budget is not None:
        fitted["lambda_l0"] = None  # the budget sets it
    fitted["schedule"] = None if plan.schedule is None else "anneal"  # None: also in files from before any
    if plan.budget is not None and plan.budget.sampled:
        target = f"{target}, sampled"
    return {**objective.sha256(), "target_records": target, **fitted, **constraints_signature(plan.constraints)}


def run_facts(model, matrix: PackedMatrix, objective: Objective, options: FitOptions, plan: RunPlan, **more) -> dict:
    """What the processes of a run must have in common, by the name that fit or the constructor gives it."""
    rhythm = ("epochs", "verbose", "verbose_freq", "resume", "checkpoint_freq")
    facts = {
        "M": f"{matrix.n_targets} targets, {matrix.dtype}",
        "exact": plan.budget is not None and plan.budget.exact,
        "checkpoint": options.checkpoint is not None,
        "callback": options.callback is not None,
        "epoch of the run": model.epoch,
        **{
            name: str(getattr(model, name))
            for name in ("beta", "gamma", "zeta", "use_gates", "seed", "log_weight_jitter_sd")
        },
        **{name: getattr(options, name) for name in rhythm},
    }
    return {**facts, **run_signature(objective, options, plan), **more}
