import pytest
import torch
from compare import assert_as_good_as_torch, away_from_kinks
from torch.autograd import gradcheck

from l0fast import constants as c
from l0fast import ops, reference

SIZES = [0, 1, 3, 5, 63, 1021, 4099]
SEED = torch.tensor([1234567890123456789])
OPTIONS = [
    {},
    {"temperature": 0.1},
    {"temperature": 3.0, "gamma": -0.5, "zeta": 1.7},
    {"stream": 4294967295, "first_index": 3},
    {"first_index": 2**40 + 1},
    {"eval_temperature": False},
    {"bound": 1.5},
]


def unclamped(log_alpha, seed, **options):
    """The stretched gate before its clamp: the reference with bounds that never bite."""
    gamma, zeta = options.get("gamma", c.GAMMA), options.get("zeta", c.ZETA)
    a = log_alpha.clamp(-options.get("bound", c.LOG_ALPHA_BOUND), options.get("bound", c.LOG_ALPHA_BOUND))
    beta = options.get("temperature", c.BETA)
    if seed is None:
        s = torch.sigmoid(a / beta if options.get("eval_temperature", True) else a)
    else:
        u = reference.uniform_at(seed, options.get("stream", 0), options.get("first_index", 0), a.numel(), a.dtype)
        s = torch.sigmoid((torch.logit(u.view(a.shape).clamp(1e-6, 1 - 1e-6)) + a) / beta)
    return s * (zeta - gamma) + gamma


@pytest.mark.parametrize("seed", [SEED, torch.tensor([-7]), None], ids=["sampled", "negative seed", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward_against_reference(native, size, options, seed):
    x = torch.randn(size) * 3
    weight = torch.randn(size)
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        a = x.clone().to(dtype).requires_grad_()
        z = function.hard_concrete(a, seed, **options)
        (z * weight).sum().backward()
        results.append((z.detach(), a.grad))
    mask = away_from_kinks(unclamped(x.double(), seed, **options))
    assert_as_good_as_torch(*(z for z, _ in results), "z")
    assert_as_good_as_torch(*(g[mask] for _, g in results), "gradient")


@pytest.mark.parametrize("seed", [SEED, None])
def test_float64_equals_reference(native, seed):
    a = torch.randn(1021, dtype=torch.float64) * 3
    torch.testing.assert_close(ops.hard_concrete(a, seed), reference.hard_concrete(a, seed), rtol=0, atol=1e-14)


def test_uniform_known_answers():
    """Philox4x32-10 of counter 0 and key 0, from the test vectors of Random123."""
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    expected = torch.tensor([((w >> 9) + 0.5) * 2.0**-23 for w in words])
    assert torch.equal(reference.uniform_at(torch.tensor([0]), 0, 0, 4), expected)


def test_noise_is_a_function_of_the_global_index(native):
    a = torch.randn(5000)
    whole = ops.hard_concrete(a, SEED, stream=9)
    for begin, end in ((0, 1), (1, 6), (1023, 1026), (17, 5000)):
        shard = ops.hard_concrete(a[begin:end].clone(), SEED, stream=9, first_index=begin)
        assert torch.equal(shard, whole[begin:end])


def test_streams_and_seeds_differ(native):
    a = torch.zeros(1000)
    draws = [ops.hard_concrete(a, SEED), ops.hard_concrete(a, SEED, stream=1), ops.hard_concrete(a, SEED + 1)]
    assert all(not torch.equal(draws[i], draws[j]) for i in range(3) for j in range(i))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    a = torch.randn(10_000)
    expected = ops.hard_concrete(a, SEED)
    torch.set_num_threads(threads)
    assert torch.equal(ops.hard_concrete(a, SEED), expected)


def test_non_contiguous_and_many_dimensions(native):
    a = torch.randn(7, 11, 3).transpose(0, 2)
    z = ops.hard_concrete(a, SEED)
    assert z.shape == a.shape
    assert torch.equal(z, ops.hard_concrete(a.contiguous(), SEED))


@pytest.mark.parametrize("seed", [SEED, None])
def test_gradcheck(seed):
    a = torch.randn(40, dtype=torch.float64)
    a = a[away_from_kinks(unclamped(a, None))][:20].requires_grad_()
    if seed is not None:  # noise goes by index: gates near a kink must stay where they are, so pick a good stream
        stream = next(s for s in range(100) if away_from_kinks(unclamped(a.detach(), seed, stream=s)).all())
        assert gradcheck(lambda x: ops.hard_concrete(x, seed, stream=stream), (a,))
    else:
        assert gradcheck(lambda x: ops.hard_concrete(x), (a,))


def test_extremes_stay_finite(native):
    a = torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4], requires_grad=True)
    for options in ({"temperature": 1e-4}, {"temperature": 50.0}):
        for seed in (SEED, None):
            z = ops.hard_concrete(a, seed, **options)
            (grad,) = torch.autograd.grad(z.sum(), a)
            assert torch.isfinite(z).all() and torch.isfinite(grad).all()
            assert grad[0] == 0 and grad[4] == 0


def test_nan_stays_nan(native):
    a = torch.tensor([0.0, float("nan"), 1.0])
    for seed in (SEED, None):
        assert ops.hard_concrete(a, seed).isnan().tolist() == [False, True, False]


def test_closed_form_of_the_distribution(native):
    """Means over a million draws: P(z = 0), P(z = 1) within four standard errors of the closed forms."""
    count, beta, gamma, zeta = 1_000_000, 0.5, c.GAMMA, c.ZETA
    for log_alpha in (-2.0, 0.0, 1.5):
        z = ops.hard_concrete(torch.full((count,), log_alpha), SEED, temperature=beta)
        for observed, edge in (((z == 0), 0.0), ((z < 1), 1.0)):
            s = torch.tensor((edge - gamma) / (zeta - gamma), dtype=torch.float64)
            p = torch.sigmoid(beta * torch.logit(s) - log_alpha).item()
            assert abs(observed.double().mean().item() - p) < 4 * (p * (1 - p) / count) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(log_alpha=[0.0]), TypeError, r"log_alpha: expected a torch.Tensor, got list"),
        (dict(log_alpha=torch.zeros(2, dtype=torch.int64)), TypeError, r"log_alpha: .*got int64"),
        (dict(seed=torch.tensor([1.0])), TypeError, r"seed: expected an int64 tensor of one element"),
        (dict(seed=torch.tensor([1, 2])), TypeError, r"seed: .*shape \[2\]"),
        (dict(temperature=0.0), ValueError, r"temperature: expected a positive number, got 0.0"),
        (dict(temperature=float("nan")), ValueError, r"temperature"),
        (dict(gamma=0.0), ValueError, r"gamma: expected a negative number"),
        (dict(zeta=1.0), ValueError, r"zeta: expected a number above 1"),
        (dict(stream=-1), ValueError, r"stream: expected 0 <= stream < 2\^32"),
        (dict(stream=2**32), ValueError, r"stream"),
        (dict(first_index=-1), ValueError, r"first_index"),
        (dict(bound=0.0), ValueError, r"bound"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.hard_concrete(**{"log_alpha": torch.zeros(2), "seed": SEED, **arguments})


def test_raw_op_checks_too(native):
    raw = torch.ops.l0fast.hard_concrete
    good = (0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6, True)
    with pytest.raises(RuntimeError, match=r"log_alpha: expected float16, bfloat16, float32 or float64, got int64"):
        raw(torch.zeros(2, dtype=torch.int64), None, *good)
    with pytest.raises(RuntimeError, match=r"log_alpha: expected a contiguous tensor"):
        raw(torch.zeros(4, 4).t(), None, *good)
    with pytest.raises(RuntimeError, match=r"temperature: expected a positive number"):
        raw(torch.zeros(2), None, 0, 0, -0.5, *good[3:])


def test_opcheck_and_compile(native):
    a = torch.randn(100, requires_grad=True)
    scalars = (0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6, True)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    for seed in (SEED, None):
        torch.library.opcheck(torch.ops.l0fast.hard_concrete.default, (a.detach(), seed, *scalars), test_utils=tests)
        arguments = (torch.ones(100), a.detach(), seed, *scalars)
        torch.library.opcheck(torch.ops.l0fast.hard_concrete_backward.default, arguments, test_utils=tests)
    compiled = torch.compile(lambda x: ops.hard_concrete(x, SEED).sum(), fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(ops.hard_concrete(a, SEED).sum(), a)
    (got,) = torch.autograd.grad(compiled(a), a)
    assert torch.equal(got, expected)


def test_saves_only_parameters_and_seed(native):
    a = torch.randn(1000, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x):
        ops.hard_concrete(a, SEED)
    assert set(saved) == {a.data_ptr(), SEED.data_ptr()}
