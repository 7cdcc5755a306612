"""How HardConcrete can be spelled: any rank, l0-python's positions and names; and what is refused."""

import math

import numpy as np
import pytest
import torch

from l0fast import HardConcrete


@pytest.mark.parametrize("size", [(3,), (3, 4), (2, 3, 4), (1, 2, 1, 2, 2)], ids=str)
def test_any_rank(size):
    for gates in (HardConcrete(*size), HardConcrete(size), HardConcrete(list(size))):
        assert gates.gate_size == size and gates.qz_logits.shape == size
        assert gates().shape == size and gates.eval()().shape == size
        assert gates.get_active_prob().shape == size and gates.get_penalty().shape == ()
        assert list(gates.state_dict()) == ["qz_logits"]


@pytest.mark.parametrize(
    ("gates", "size", "numbers"),
    [
        (lambda: HardConcrete(10), (10,), (0.5, 0.1, 0.5)),
        (lambda: HardConcrete(10, None), (10,), (0.5, 0.1, 0.5)),
        (lambda: HardConcrete(10, None, 0.3), (10,), (0.3, 0.1, 0.5)),
        (lambda: HardConcrete(10, 5, 0.3), (10, 5), (0.3, 0.1, 0.5)),
        (lambda: HardConcrete(10, 5, 0.3, 0.2, 0.4), (10, 5), (0.3, 0.2, 0.4)),
        (lambda: HardConcrete(10, 5, 0.3, 0.2, None), (10, 5), (0.3, 0.2, None)),
        (lambda: HardConcrete(10, 5, 1, 0.2), (10, 5), (1.0, 0.2, 0.5)),
        (lambda: HardConcrete(10, None, 2, 1), (10,), (2.0, 1.0, 0.5)),
        (lambda: HardConcrete(10, 5, np.float32(0.25)), (10, 5), (0.25, 0.1, 0.5)),
        (lambda: HardConcrete(input_dim=10), (10,), (0.5, 0.1, 0.5)),
        (lambda: HardConcrete(input_dim=10, output_dim=5, temperature=0.3), (10, 5), (0.3, 0.1, 0.5)),
        (lambda: HardConcrete(10, output_dim=5, stretch=0.2), (10, 5), (0.5, 0.2, 0.5)),
        (lambda: HardConcrete(np.int64(10), 5, 7), (10, 5, 7), (0.5, 0.1, 0.5)),
    ],
)
def test_spellings(gates, size, numbers):
    """l0-python's positions and names, and the *gate_size of its documentation."""
    gates = gates()
    assert gates.gate_size == size and gates.qz_logits.shape == size
    assert (gates.temperature, gates.stretch, gates.init_mean) == numbers
    assert (gates.gamma, gates.zeta) == (-numbers[1], 1 + numbers[1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HardConcrete(), TypeError, r"gate_size: expected at least one size, got none"),
        (lambda: HardConcrete([]), TypeError, r"gate_size: expected at least one size, got none"),
        (lambda: HardConcrete(0), ValueError, r"gate_size: expected at least 1, got 0"),
        (lambda: HardConcrete(3, -1), ValueError, r"gate_size: expected at least 1, got -1"),
        (lambda: HardConcrete("10"), TypeError, r"gate_size: expected an int, got str"),
        (lambda: HardConcrete(True), TypeError, r"gate_size: expected an int, got bool"),
        (lambda: HardConcrete(3, 2, 0.5, 0.1, 0.5, 0.5), TypeError, r"expected at most temperature, stretch and"),
        (
            lambda: HardConcrete(3, 2, 0.3, temperature=0.5),
            TypeError,
            r"temperature: expected it once, got 0.5 by name",
        ),
        (lambda: HardConcrete(3, 2, 0.3, 0.2, 0.1, init_mean=None), TypeError, r"init_mean: expected it once"),
        (lambda: HardConcrete(3, input_dim=3), TypeError, r"input_dim: expected it once"),
        (lambda: HardConcrete(3, 2, output_dim=3), TypeError, r"output_dim: expected it after one size"),
        (lambda: HardConcrete(output_dim=3), TypeError, r"output_dim: expected it after one size"),
        (lambda: HardConcrete(3, temperature=0.0), ValueError, r"temperature: expected a positive number, got 0.0"),
        (lambda: HardConcrete(3, temperature=-1), ValueError, r"temperature: expected a positive number, got -1"),
        (lambda: HardConcrete(3, temperature=math.nan), ValueError, r"temperature: .*got nan"),
        (lambda: HardConcrete(3, temperature=math.inf), ValueError, r"temperature: .*got inf"),
        (lambda: HardConcrete(3, temperature=True), TypeError, r"temperature: expected a number, got bool"),
        (lambda: HardConcrete(3, temperature="0.5"), TypeError, r"temperature: expected a number, got str"),
        (lambda: HardConcrete(3, stretch=0.0), ValueError, r"stretch: expected a positive number, got 0.0"),
        (lambda: HardConcrete(3, stretch=math.nan), ValueError, r"stretch: .*got nan"),
        (lambda: HardConcrete(3, stretch=False), TypeError, r"stretch: expected a number, got bool"),
        (lambda: HardConcrete(3, init_mean=1.5), ValueError, r"init_mean: expected a probability in \[0, 1\], got 1.5"),
        (lambda: HardConcrete(3, init_mean=-0.1), ValueError, r"init_mean: expected a probability"),
        (lambda: HardConcrete(3, init_mean=math.nan), ValueError, r"init_mean: .*got nan"),
        (lambda: HardConcrete(3, dtype=torch.int32), TypeError, r"dtype: expected float16.*got int32"),
        (
            lambda: HardConcrete(3, eval_temperature=0.1),
            TypeError,
            r"eval_temperature: expected True or False, got 0.1",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_bad_temperature_changes_nothing():
    gates = HardConcrete(3, temperature=0.7)
    for value, error in ((0.0, ValueError), (math.nan, ValueError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match="temperature"):
            gates.temperature = value
        assert gates.temperature == 0.7
