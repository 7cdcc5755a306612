"""What the parts of a fit ask of the other processes; and the answers where there are none."""

from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .bounds import Shard
from .content import matrix_sha256
from .processes import Processes


class Alone:
    """All records in this process: what :class:`ShardGroup` answers, without any traffic."""

    size, rank, first, is_first, sharded = 1, 0, 0, True, False
    together = None

    def __init__(self, model):
        self.n_total = model.n_features
        self._model = model

    @property
    def reach(self) -> tuple[int, int]:
        """Records whose gate is always open, and records whose gate is not always closed."""
        return frozen(self._model)

    @contextmanager
    def agreed(self):
        yield

    def check_same(self, facts: dict) -> None:
        """Nobody else to differ from."""

    def sum(self, *counts: int) -> tuple[int, ...]:
        return counts

    def of_first(self, number: float) -> float:
        return number

    def seed(self, seed: Tensor) -> Tensor:
        return seed

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        return seconds, stop

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def matrix_sha256(self, matrix) -> str:
        return matrix.sha256()

    def saved(self, path, epoch: int) -> None:
        """Nobody else to lose."""


class ShardGroup(Processes):
    """The processes of a fit, each with the records of its shard.

    Raises:
        ValueError: the shards do not follow one another from record 0 to the last.
    """

    sharded = True

    def __init__(self, group: "dist.ProcessGroup", shard: Shard, device: torch.device):
        super().__init__(group, device)
        self.shard, self.first, self.n_total = shard, shard.first, shard.n_total
        self.reach = (0, shard.n_total)
        self._check_shards()

    def _check_shards(self) -> None:
        shards = [Shard(*map(int, row)) for row in self._all(torch.tensor([self.first, self.shard.size, self.n_total]))]
        end = 0
        for rank, shard in enumerate(shards):
            last = rank == self.size - 1
            if shard.first != end or shard.n_total != self.n_total or (last and shard.end != self.n_total):
                raise ValueError(
                    f"shard: expected process {rank} of {self.size} to have the records from {end}"
                    f"{f' to {self.n_total - 1}' if last else ''} of {self.n_total}, got {shard}"
                )
            end = shard.end

    def matrix_sha256(self, matrix) -> str:
        """PackedMatrix.sha256 of the whole matrix."""
        return matrix_sha256(self, matrix)


def open_group(model, process_group) -> Alone | ShardGroup:
    """The group of a fit.

    Raises:
        TypeError: process_group is none.
        ValueError: a model of some of the records without a group, a model of all of them in a group of several
            processes, or one with methods of its own.
    """
    if process_group is None:
        if model.shard is not None and model.shard.size < model.shard.n_total:
            raise ValueError(f"process_group: expected one for a model of {model.shard}, got None")
        return Alone(model)
    if not (dist.is_available() and isinstance(process_group, dist.ProcessGroup)):
        raise TypeError(
            f"process_group: expected one of torch.distributed (dist.group.WORLD), got {type(process_group).__name__}"
        )
    if model._by_hand():
        raise ValueError(f"process_group: expected no overridden methods, got those of {type(model).__name__}")
    if model.shard is None and dist.get_world_size(process_group) > 1:
        raise ValueError("process_group: expected a model made with shard=, which says which records it has")
    shard = model.shard or Shard(0, model.n_features, model.n_features)
    group = ShardGroup(process_group, shard, model.device)
    least, closed = group.sum(frozen(model)[0], model.n_features - frozen(model)[1])
    group.reach = (least, group.n_total - closed)
    return group


def refuse_sharded(group: Alone | ShardGroup, **given) -> None:
    """Raises ValueError for the first option that needs all records in one process; None and "free" are not given."""
    for name, value in given.items():
        if group.sharded and value is not None and value != "free":
            raise ValueError(f"{name}: works in one process only, got it with process_group")


def frozen(model, log_alpha: Tensor | None = None) -> tuple[int, int]:
    """Records whose gate is beyond the bound and never closes, and records whose gate may be open."""
    log_alpha = model.log_alpha if log_alpha is None else log_alpha
    always_open = int((log_alpha > model.LOG_ALPHA_BOUND).sum())
    return always_open, model.n_features - int((log_alpha < -model.LOG_ALPHA_BOUND).sum())
