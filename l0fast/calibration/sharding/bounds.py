"""Which records belong to which process."""

import itertools
from dataclasses import dataclass

import numpy as np

RECORD_COST = 7.0
"""Nonzeros that cost as much as what a record costs without any: noise, exp and two Adam steps (preflight's rates)."""


@dataclass(frozen=True)
class Shard:
    """The records first .. first + size - 1 of n_total.

    Raises:
        TypeError, ValueError: not ints, or records that are not there.
    """

    first: int
    size: int
    n_total: int

    def __post_init__(self):
        for name in ("first", "size", "n_total"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"shard: expected {name} to be an int, got {type(value).__name__}")
        if not (self.first >= 0 and self.size >= 1 and self.end <= self.n_total):
            raise ValueError(
                f"shard: expected at least one record of {self.n_total}, got {self.size} from record {self.first}"
            )

    @property
    def end(self) -> int:
        return self.first + self.size

    @property
    def slice(self) -> slice:
        """Of an array over all records."""
        return slice(self.first, self.end)

    def __str__(self) -> str:
        return f"records {self.first} to {self.end - 1} of {self.n_total}"


def shard_bounds(indptr, world_size: int, record_cost: float = RECORD_COST) -> list[Shard]:
    """Cuts the records into world_size runs of about equal cost, each of at least one record.

    A record costs its nonzeros plus ``record_cost``, both in units of a nonzero.

    Args:
        indptr: [n + 1] non-decreasing, where each record's nonzeros begin: ``indptr`` of compressed columns.
        world_size: number of processes, from 1 to n.
        record_cost: at least 0.

    Raises:
        ValueError: an argument out of range, by name.
    """
    indptr = np.asarray(indptr)
    if indptr.ndim != 1 or indptr.size < 2 or indptr.dtype.kind not in "iu" or (indptr[1:] < indptr[:-1]).any():
        raise ValueError("indptr: expected a non-decreasing vector of at least two integers")
    n = indptr.size - 1
    if isinstance(world_size, bool) or not isinstance(world_size, int | np.integer) or not 1 <= world_size <= n:
        raise ValueError(f"world_size: expected 1 to {n} processes for {n} records, got {world_size!r}")
    if not 0 <= record_cost < float("inf"):
        raise ValueError(f"record_cost: expected a finite non-negative number, got {record_cost}")
    cost = (indptr - indptr[0]).astype(np.float64)
    cost += record_cost * np.arange(n + 1)
    if cost[-1] == 0:
        cost = np.arange(n + 1, dtype=np.float64)
    ranks = np.arange(1, world_size)
    ends = np.searchsorted(cost, cost[-1] * ranks / world_size)
    ends -= cost[ends] - cost[-1] * ranks / world_size > cost[-1] * ranks / world_size - cost[ends - 1]  # the nearer
    ends = np.maximum.accumulate(np.maximum(ends, 1) - ranks) + ranks  # each at least one record beyond the last
    ends = np.minimum(ends, n - (world_size - ranks))
    cuts = [0, *ends.tolist(), n]
    return [Shard(first, end - first, n) for first, end in itertools.pairwise(cuts)]


def equal_shard(n_total: int, rank: int, world_size: int) -> Shard:
    """The shard of one process where all have about equally many records.

    Raises:
        ValueError: fewer records than processes.
    """
    if n_total < world_size:
        raise ValueError(f"world_size: expected 1 to {n_total} processes for {n_total} records, got {world_size}")
    first, end = (n_total * k // world_size for k in (rank, rank + 1))
    return Shard(first, end - first, n_total)
