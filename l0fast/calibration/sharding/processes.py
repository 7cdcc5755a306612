"""What processes say to one another: sums, agreement, contents; every failure by name."""

import json
import re
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import PeerError, ProcessLostError


class Processes:
    """The processes of a torch.distributed group. Every method is called by all of them, in the same order.

    Args:
        group: gloo or NCCL.
        device: of the tensors to come. With gloo, what travels does so through the CPU.

    Raises:
        ProcessLostError: in every method, where another process has ended or has not answered within the
            timeout that the group was made with.
    """

    def __init__(self, group: "dist.ProcessGroup", device: torch.device):
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.is_first = self.rank == 0
        self.device = torch.device("cpu") if "gloo" in dist.get_backend(group) else device
        self._checkpoint = "there is no checkpoint"

    # -- agreement ----------------------------------------------------------------------------------------------------

    @contextmanager
    def agreed(self):
        """All finish what is inside, or none goes on: an exception in one process is a PeerError in the others.

        Inside, nothing may be asked of the group.
        """
        failure = None
        try:
            yield
        except ProcessLostError:
            raise
        except Exception as error:
            failure = error
        said = self.texts("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # else it holds this frame, and the frame it: the group would outlive its end
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
            # gloo: "[file:line] What happened. What may have caused it."
            why = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip().splitlines()[0]).partition(". ")[0]
            raise ProcessLostError(
                f"process_group: process {self.rank} of {self.size} lost another one, which has ended or not answered "
                f"in time; {self._checkpoint} ({why})"
            ) from None
