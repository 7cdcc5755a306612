"""A table of records that several processes read, each its part."""

from contextlib import contextmanager

import torch
import torch.distributed as dist

from .bounds import Shard, equal_shard
from .processes import Processes


class Together:
    """The processes that read a table, or none but this one."""

    shard: Shard | None = None

    def __init__(self, process_group=None):
        self._processes = None if process_group is None else Processes(process_group, _device(process_group))

    @contextmanager
    def agreed(self):
        """See Processes.agreed."""
        if self._processes is None:
            yield
        else:
            with self._processes.agreed():
                yield

    def take_part(self, source) -> None:
        """Narrows a source to this process's records.

        Raises:
            TypeError: it is no file. ValueError: it has fewer records than there are processes.
        """
        if self._processes is None:
            return
        if not hasattr(source, "narrow"):
            raise TypeError("data: expected the path of a parquet file with process_group, got a table in memory")
        self.shard = equal_shard(source.n_records, self._processes.rank, self._processes.size)
        source.narrow(self.shard.first, self.shard.end)

    def add_up(self, found) -> None:
        """Makes the counts of each target those of all processes."""
        if self._processes is not None:
            for name in ("met", "entries", "missing"):
                counts = torch.from_numpy(getattr(found, name))
                setattr(found, name, self._processes.reduced(counts, "sum").numpy())


def _device(process_group) -> torch.device:
    """Where NCCL wants its tensors."""
    return torch.device("cpu" if "gloo" in dist.get_backend(process_group) else "cuda")
