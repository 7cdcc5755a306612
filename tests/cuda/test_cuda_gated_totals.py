"""gated_totals on the device: mirrors tests/test_gated_totals.py."""

import pytest
import torch
from compare import away_from_kinks
from cuda_cases import check, large, misaligned, same_bits
from test_gated_totals import OPTIONS, SEED, SHAPES, problem, ragged
from test_hard_concrete import unclamped

from l0fast import constants as c
from l0fast import ops, reference

NAMES = ("totals", "penalty", "log_weight.grad", "log_alpha.grad")


def to(where, *tensors):
    return [t.to(where) if isinstance(t, torch.Tensor) else t for t in tensors]


def run(functions, arguments, pull, seed, where, dtype=torch.float32, **options):
    """Totals, penalty and the gradients of ``sum pull totals + 0.3 penalty``."""
    log_weight, log_alpha, indptr, rows, values, m = to(where, *arguments)
    w, a = (t.to(dtype).requires_grad_() for t in (log_weight, log_alpha))
    seed = None if seed is None else seed.to(where)
    totals, penalty = functions.gated_totals(w, a, indptr, rows, values.to(dtype), m, seed, **options)
    loss = (totals * pull.to(where, dtype)).sum() + 0.3 * penalty
    grads = torch.autograd.grad(loss, (w, a), allow_unused=True)
    grads = (torch.zeros_like(w) if g is None else g for g in grads)
    return [t.detach() for t in (totals, penalty, *grads)]


@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward(device, shape, options, seed):
    arguments, pull = problem(*shape, torch.float32), torch.randn(shape[0])
    gate = {k: v for k, v in options.items() if k not in ("gates", "link")}
    mask = away_from_kinks(unclamped(arguments[1].double(), seed, **gate))

    def call(functions, dtype, where):
        return run(functions, arguments, pull, seed, where, dtype, **options)

    check(call, device, NAMES, {"log_alpha.grad": mask})


@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("typical", [3, 20, 60, 200])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.1, 0.0], ids="open {}".format)
def test_columns_of_every_length(device, row_type, dtype, typical, share):
    """Empty, short and long columns, in every share of open gates."""
    generator = torch.Generator().manual_seed(typical)
    lengths = torch.randint(0, 2 * typical, (700,), generator=generator).tolist()
    lengths[::97] = [0] * len(lengths[::97])
    lengths[5:700:100] = [15, 16, 17, 31, 32, 33, 64]
    lengths[130:133] = [900] * 3
    arguments = gated(lengths, 1000, row_type, share, generator)
    pull = torch.randn(1000, generator=generator)
    if dtype == torch.float32:
        check(lambda f, d, where: run(f, arguments, pull, None, where, d), device, NAMES)
        return
    got = run(ops, arguments, pull, None, device, dtype)
    expected = run(reference, arguments, pull, None, "cpu", dtype)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-11, atol=1e-11)


def gated(lengths, m, row_type, share, generator):
    """Arguments of the op for columns of these lengths, of which a share has its gate open, the others closed."""
    indptr, rows, values = ragged(lengths, m, row_type)
    n = len(lengths)
    log_alpha = torch.where(torch.rand(n, generator=generator) < share, 30.0, -30.0)
    return torch.randn(n, generator=generator), log_alpha, indptr, rows, values.float(), m


EXTREMES = {
    "one target": ([1] * 300 + [0] * 40, 1),
    "one record": ([500], 1000),
    "a giant column": ([3] * 50 + [60_000] + [3] * 50, 65_000),
    "100,000 targets": ([7] * 400 + [0] * 30 + [900], 100_000),
    "no nonzeros": ([0] * 10, 5),
    "no records": ([], 5),
    "more targets than shared memory holds": ([40] * 100, 60_001),
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_extreme_shapes(device, name, share):
    lengths, m = EXTREMES[name]
    row_type = torch.uint16 if m <= 65_536 else torch.int32
    generator = torch.Generator().manual_seed(2)
    arguments, pull = gated(lengths, m, row_type, share, generator), torch.randn(m, generator=generator)
    check(lambda f, d, where: run(f, arguments, pull, None, where, d), device, NAMES)


def test_row_types_agree(device):
    results = []
    for row_type in (torch.uint16, torch.int32):
        arguments = to(device, *problem(77, 3001, torch.float32, row_type))
        results.append(ops.gated_totals(*arguments, SEED.to(device))[0])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
def test_a_closed_column_has_no_effect(device, link):
    """Not a bit of the results depends on the column of a record whose gate is closed.

    Finite numbers of the same size: these kernels may refuse NaN in M, and count in units of its largest value.
    """
    log_weight, log_alpha, indptr, rows, values, m = problem(77, 301, torch.float32)
    closed = torch.arange(301) % 4 != 0
    log_alpha[closed] = -40
    pull = torch.randn(m)
    expected = run(ops, (log_weight, log_alpha, indptr, rows, values, m), pull, SEED, device, link=link)
    other = torch.where(torch.repeat_interleave(closed, indptr.diff()), -values, values)
    got = run(ops, (log_weight, log_alpha, indptr, rows, other, m), pull, SEED, device, link=link)
    assert same_bits(got, expected)


def test_same_bits_twice(device):
    n = large(device)
    arguments, pull = problem(300, min(n, 40_000), torch.float32), torch.randn(300)
    results = [run(ops, arguments, pull, SEED, device) for _ in range(3)]
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])


@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32], ids=str)
def test_misaligned_arrays(device, row_type):
    arguments, pull = problem(77, 301, torch.float32, row_type), torch.randn(77)
    expected = run(ops, arguments, pull, SEED, device)
    shifted = [misaligned(t, device) if isinstance(t, torch.Tensor) else t for t in arguments]
    for a, b in zip(run(ops, shifted, pull, SEED, device), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_shard_draws_by_its_global_index(device):
    """Totals of two shards add up to those of the whole, with the same gates."""
    log_weight, log_alpha, indptr, rows, values, m = to(device, *problem(30, 501, torch.float32))
    seed, whole = SEED.to(device), None
    whole, penalty = ops.gated_totals(log_weight, log_alpha, indptr, rows, values, m, seed)
    parts = []
    for begin, end in ((0, 203), (203, 501)):
        low, high = int(indptr[begin]), int(indptr[end])
        matrix = (indptr[begin : end + 1] - low, rows[low:high], values[low:high], m, seed)
        parts.append(ops.gated_totals(log_weight[begin:end], log_alpha[begin:end], *matrix, first_index=begin))
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts[0][1] + parts[1][1], penalty)


@pytest.mark.parametrize(
    ("position", "place", "value", "message"),
    [(3, -1, 30, r"rows: expected"), (2, 5, 10**6, r"indptr: expected"), (2, 0, 1, r"indptr: expected")],
)
def test_indices_out_of_order_or_range_are_refused(device, position, place, value, message):
    arguments = list(problem(30, 50, torch.float32, torch.int32))
    arguments[position] = arguments[position].clone()
    arguments[position][place] = value
    with pytest.raises(RuntimeError, match=message):
        totals, _ = ops.gated_totals(*to(device, *arguments), SEED.to(device))
        totals.cpu()
