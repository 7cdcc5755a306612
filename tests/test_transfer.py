"""Copying to a GPU in pieces: the arithmetic, and that no buffer is filled again while a copy still reads it."""

import itertools

import pytest
import torch

from l0fast.calibration.transfer import pieces, stage


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_every_element_is_covered_exactly_once(itemsize):
    for count, piece_bytes in itertools.product((0, 1, 2, 3, 7, 8, 9, 64, 101), (8, 9, 16, 24, 4096)):
        covered = [0] * count
        for begin, end in pieces(count, itemsize, piece_bytes):
            assert 0 < (end - begin) * itemsize <= piece_bytes
            for k in range(begin, end):
                covered[k] += 1
        assert covered == [1] * count


@pytest.mark.parametrize("count", [2**31 - 1, 2**31, 2**31 + 7, 5 * 2**30])
def test_beyond_32_bits(count):
    """Planned, not allocated."""
    plan = list(pieces(count, 4, 64 << 20))
    assert plan[0][0] == 0 and plan[-1][1] == count
    assert all(a[1] == b[0] for a, b in itertools.pairwise(plan))
    assert {end - begin for begin, end in plan[:-1]} == {16 << 20} and 0 < plan[-1][1] - plan[-1][0] <= 16 << 20


def test_a_piece_holds_an_element():
    with pytest.raises(ValueError, match="piece_bytes: expected at least the 8 of one element, got 7"):
        list(pieces(3, 8, 7))


class SlowDevice:
    """Copies that take place as late as they may: when their buffer is waited for, or at the end."""

    def __init__(self, n_buffers, n_bytes, heeds_wait=True):
        self.buffers = [torch.zeros(n_bytes, dtype=torch.uint8) for _ in range(n_buffers)]
        self.on_the_way = {}
        self.heeds_wait = heeds_wait

    def wait(self, k):
        if self.heeds_wait and k in self.on_the_way:
            target, filled = self.on_the_way.pop(k)
            target.copy_(filled)

    def send(self, k, target, filled):
        if k in self.on_the_way:  # only where wait is ignored: what was sent first is copied now, too late
            late, old = self.on_the_way[k]
            late.copy_(old)
        self.on_the_way[k] = (target, filled)

    def copied(self, source, dtype):
        target = torch.zeros(source.shape, dtype=dtype)
        stage(source, target, self.buffers, self.wait, self.send)
        for late, filled in self.on_the_way.values():
            late.copy_(filled)
        self.on_the_way.clear()
        return target


CASES = [
    (torch.arange(1001), torch.int64),
    (torch.arange(1001).to(torch.uint16), torch.uint16),
    (torch.arange(3, dtype=torch.int32), torch.int32),
    (torch.rand(1001, generator=torch.Generator().manual_seed(1)), torch.float32),
    (torch.rand(1001, generator=torch.Generator().manual_seed(1)), torch.float64),
    (torch.zeros(0), torch.float32),
    (torch.ones(1), torch.float64),
]


@pytest.mark.parametrize(("source", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("n_bytes", [8, 40, 4096, 8008])
def test_what_arrives_is_what_was_sent(source, dtype, n_bytes):
    assert torch.equal(SlowDevice(2, n_bytes).copied(source, dtype), source.to(dtype))


def test_the_slow_device_notices_a_buffer_filled_too_early():
    source = torch.arange(1001)
    assert not torch.equal(SlowDevice(2, 40, heeds_wait=False).copied(source, torch.int64), source)
