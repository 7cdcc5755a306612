"""``torchrun -m l0fast calibrate``: one command in many processes, of which the first speaks and writes."""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from ..calibration.sharding import PeerError, ProcessLostError, shard_bounds
from ..calibration.sharding.npz import read_columns
from ..calibration.sharding.processes import Processes
from .device import check_device, device_kind
from .files import InputError, check_readable, damaged, finished, read_matrix
from .output import say

LOST = 4
"""Exit code where another process has ended."""
_SAID_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class CommandProcesses(Processes):
    """The processes of a command, joined as torchrun's environment says.

    Attributes:
        terminated: whether SIGTERM has come. Outside of a fit, which obeys it, it is noted only: torchrun sends it to
            all when one process is lost, and what is to be said about that must be said.
    """

    def __init__(self, device: torch.device, timeout: int):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
        super().__init__(dist.group.WORLD, device)
        self.terminated = False
        signal.signal(signal.SIGTERM, self._note)
        if not self.is_first:
            sys.stdout = open(os.devnull, "w")

    def _note(self, *_) -> None:
        self.terminated = True

    def obey(self) -> None:
        """Raises KeyboardInterrupt in all processes where one was told to end."""
        if self.sum(int(self.terminated))[0]:
            raise KeyboardInterrupt("by SIGTERM")

    def run(self, command: Callable[[], int]) -> int:
        """The command's exit code; what goes wrong is said by the first process, for all of them."""
        try:
            return int(self.of_first(command()))
        except ProcessLostError as error:
            if self.rank < 2:  # the first may be the lost one
                print(f"l0fast: error: {error}", file=sys.stderr, flush=True)
            return LOST
        except PeerError as error:
            if self.is_first:
                raise InputError(str(error).replace("InputError: ", "", 1)) from None
            return 2
        except (InputError, KeyboardInterrupt) as error:
            if self.is_first:
                raise
            return 130 if isinstance(error, KeyboardInterrupt) else 2
        finally:
            # gloo's threads must end before the interpreter does: no reference to the group may be left until then.
            self.group = None
            dist.destroy_process_group()
            gc.collect()

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_matrix(self, path, transposed: bool):
        """This process's columns of MATRIX [n_targets, n_records], and which they are.

        Raises:
            InputError: see files.read_matrix.
        """
        if Path(path).suffix.lower() == ".npz":
            check_readable("MATRIX", path)
            with damaged(path):
                found = read_columns(path, self.rank, self.size, transposed)
            if found is not None:
                return finished(found[0], path), found[1]
        say(f"note: each process reads all of {path}; of an .npz with compressed rows or columns only its own part")
        M = read_matrix(path)
        with damaged(path):
            M = (M.T if transposed else M).tocsc()
            shard = shard_bounds(M.indptr, self.size)[self.rank]
        return M[:, shard.slice], shard

    def whole(self, local: np.ndarray) -> np.ndarray | None:
        """A vector over all records, on the first process; None elsewhere."""
        whole = self.gather(torch.from_numpy(local))
        return None if whole is None else whole.numpy()

    def totals(self, local: np.ndarray) -> np.ndarray:
        """The sum of the processes' totals [n_targets], float64."""
        return self.together(torch.from_numpy(local)).cpu().numpy()


def join(options) -> CommandProcesses | None:
    """The processes that torchrun has started for this command, or None where it has not.

    Raises:
        InputError: a device that cannot be used, or no way to reach the other processes.
    """
    if not all(name in os.environ for name in _SAID_BY_TORCHRUN):
        return None
    if device_kind(options.device) == "cuda" and torch.device(options.device).index is None:
        options.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = check_device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Its functions keep the group of the moment when they are imported as a default, and torch.optim imports them: the
    # group's threads would then outlive the interpreter, which aborts.
    importlib.import_module("torch.distributed.nn")
    try:
        return CommandProcesses(device, options.process_timeout)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        why = str(error).strip().splitlines()[0]
        raise InputError(f"torchrun: cannot reach the other processes through {where}: {why}") from None
