"""What the parts of a fit ask of the other processes; and the answers where there are none."""

import json
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .bounds import Shard
from .content import matrix_sha256
from .errors import PeerError, ProcessLost


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


class ShardGroup:
    """The processes of a fit. Every method is called by all of them, in the same order.

    Args:
        group: torch.distributed's; gloo or NCCL.
        shard: this process's records.
        device: of the model. With gloo, what travels does so through the CPU.

    Raises:
        ValueError: the shards do not follow one another from record 0 to the last.
        ProcessLost: in every method, where another process has ended or has not answered within the timeout that the
            group was made with.
    """

    def __init__(self, group: "dist.ProcessGroup", shard: Shard, device: torch.device):
        self.group, self.shard, self.model_device = group, shard, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.is_first, self.sharded = self.rank == 0, True
        self.device = torch.device("cpu") if "gloo" in dist.get_backend(group) else device
        self.first, self.n_total = shard.first, shard.n_total
        self.reach = (0, shard.n_total)
        self._checkpoint = "there is no checkpoint"
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

    # -- agreement ----------------------------------------------------------------------------------------------------

    @contextmanager
    def agreed(self):
        """All finish what is inside, or none goes on: an exception in one process is a PeerError in the others.

        Inside, nothing may be asked of the group.
        """
        failure = None
        try:
            yield
        except ProcessLost:
            raise
        except Exception as error:
            failure = error
        said = self.texts("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        culprit = next((rank for rank, text in enumerate(said) if text), None)
        if culprit is not None:
            raise PeerError(f"process {culprit} of {self.size}: {said[culprit]}")

    def check_same(self, facts: dict) -> None:
        """Raises ValueError in every process with the first name whose value is not the same in all of them."""
        theirs = [json.loads(text) for text in self.texts(json.dumps(facts, default=str))]
        for name in facts:
            for rank, other in enumerate(theirs):
                if other.get(name) != theirs[0].get(name):
                    raise ValueError(
                        f"{name}: expected the same in all processes, got {theirs[0].get(name)} in process 0 and "
                        f"{other.get(name)} in process {rank}"
                    )

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The slowest process's seconds, and whether any of them wants to stop."""
        both = torch.tensor([seconds, float(stop)], dtype=torch.float64, device=self.device)
        self._call(dist.all_reduce, both, op=dist.ReduceOp.MAX)
        return float(both[0]), bool(both[1])

    def of_first(self, number: float) -> float:
        """Process 0's number: what decides must not depend on how each machine rounds."""
        one = torch.tensor([number], dtype=torch.float64, device=self.device)
        self._call(dist.broadcast, one, group_src=0)
        return float(one)

    def seed(self, seed: Tensor) -> Tensor:
        """Process 0's noise seed."""
        here = seed.to(self.device, copy=True)
        self._call(dist.broadcast, here, group_src=0)
        return here.to(seed.device)

    # -- sums ---------------------------------------------------------------------------------------------------------

    def together(self, vector: Tensor) -> Tensor:
        """The sum of the processes' float64 vectors: the traffic of an epoch."""
        here = vector.to(self.device)
        self._call(dist.all_reduce, here)
        return here.to(vector.device)

    def sum(self, *counts: int) -> tuple[int, ...]:
        return tuple(self.reduced(torch.tensor(counts, dtype=torch.int64), "sum").tolist())

    def reduced(self, tensor: Tensor, how: str) -> Tensor:
        """'sum', 'min' or 'max' of the processes' tensors, on the CPU."""
        here = tensor.to(self.device, copy=True)
        self._call(dist.all_reduce, here, op=getattr(dist.ReduceOp, how.upper()))
        return here.cpu()

    # -- contents -----------------------------------------------------------------------------------------------------

    def gather(self, tensor: Tensor) -> Tensor | None:
        """The processes' vectors one after the other, on process 0's CPU; None elsewhere."""
        tensor = tensor.detach().to(self.device).contiguous()
        lengths = [int(row[0]) for row in self._all(torch.tensor([tensor.numel()]))]
        if not self.is_first:
            if tensor.numel():
                self._call(dist.send, tensor, group_dst=0)
            return None
        whole, end = torch.empty(sum(lengths), dtype=tensor.dtype), lengths[0]
        whole[:end] = tensor
        for rank, length in enumerate(lengths[1:], start=1):
            if length:
                part = torch.empty(length, dtype=tensor.dtype, device=self.device)
                self._call(dist.recv, part, group_src=rank)
                whole[end : end + length] = part
            end += length
        return whole

    def texts(self, text: str) -> list[str]:
        """Every process's text, in all of them."""
        content = torch.frombuffer(bytearray(text.encode()) or bytearray(1), dtype=torch.uint8)
        lengths = [int(row[0]) for row in self._all(torch.tensor([len(text.encode())]))]
        padded = torch.zeros(max(*lengths, 1), dtype=torch.uint8)
        padded[: content.numel()] = content
        rows = self._all(padded)
        return [bytes(row[:length].tolist()).decode() for row, length in zip(rows, lengths, strict=True)]

    def matrix_sha256(self, matrix) -> str:
        """PackedMatrix.sha256 of the whole matrix."""
        return matrix_sha256(self, matrix)

    # -- failure ------------------------------------------------------------------------------------------------------

    def saved(self, path, epoch: int) -> None:
        """There is a checkpoint, to be named if a process is lost."""
        self._checkpoint = f"the checkpoint {path} of epoch {epoch:,} can be resumed with any number of processes"

    def _all(self, row: Tensor) -> list[Tensor]:
        rows = [torch.empty_like(row, device=self.device) for _ in range(self.size)]
        self._call(dist.all_gather, rows, row.to(self.device))
        return [row.cpu() for row in rows]

    def _call(self, collective: Callable, *arguments, **options) -> None:
        try:
            collective(*arguments, group=self.group, **options)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0]
            raise ProcessLost(
                f"process_group: process {self.rank} of {self.size} lost another one, which has ended or not answered "
                f"in time; {self._checkpoint} ({why})"
            ) from None


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


def frozen(model) -> tuple[int, int]:
    """Records whose gate is beyond the bound and never closes, and records whose gate may be open."""
    always_open = int((model.log_alpha > model.LOG_ALPHA_BOUND).sum())
    return always_open, model.n_features - int((model.log_alpha < -model.LOG_ALPHA_BOUND).sum())
