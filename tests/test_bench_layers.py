"""The layer benchmark itself: it runs, compares before it times, and counts what is kept for backward rightly."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_layers
import common
import layer_agreement
import layer_cases
import layer_contenders
import layer_figure
from agreement import DisagreementError

NEEDS_L0 = pytest.mark.skipif(importlib.util.find_spec("l0") is None, reason="l0-python not installed")
BOTH = ["l0-python", "l0fast", "l0fast composed"]
COLUMNS = (
    "date device torch l0fast commit threads case mode contender rounds unit median p20 p80 "
    "ratio_dense ratio_eager ratio_compiled bytes_kept"
).split()


def case_of(key):
    return next(case for case in layer_cases.all_cases(quick=True) if case.key == key)


def contenders_of(key, mode="step", names=BOTH, adam=False):
    return layer_contenders.contenders_of(case_of(key), mode, names, adam)[0]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- the run ----------------------------------------------------------------------------------------------------------


@NEEDS_L0
def test_quick_run_compares_and_writes_a_well_formed_csv(tmp_path, native, capsys):
    out = tmp_path / "layers.csv"
    assert bench_layers.main(["--quick", "--out", str(out)]) == 0
    rows = read(out)
    cases = layer_cases.all_cases(quick=True)
    expected = {(c.key, m, n) for c in cases for m in c.modes for n in (c.floor, "l0-python", "l0fast")}
    assert {(row["case"], row["mode"], row["contender"]) for row in rows} == expected and len(rows) == len(expected)
    for row in rows:
        assert list(row) == COLUMNS and None not in row.values()
        assert 0 < float(row["p20"]) <= float(row["median"]) <= float(row["p80"])
        assert (row["bytes_kept"] != "") == (row["mode"] == "step")
        assert row["ratio_compiled"] == "" and float(row["ratio_eager"]) > 0
        if row["contender"] == "l0-python":
            assert float(row["ratio_eager"]) == 1
    assert capsys.readouterr().out.count("outputs agree to") == sum(len(case.modes) for case in cases)


@NEEDS_L0
def test_the_figure_is_drawn_from_full_sizes_only(tmp_path, native):
    out = tmp_path / "layers.csv"
    bench_layers.main(["--quick", "--only", "linear32,conv", "--out", str(out)])
    out.write_text(out.read_text().replace(",linear32-", ",linear784-"))
    layer_figure.main(["--csv", str(out)])
    assert out.with_suffix(".png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="expected rows of linear784-first"):
        layer_figure.draw({}, "step")


@NEEDS_L0
def test_adam_is_part_of_the_step_on_request(tmp_path, native):
    out = tmp_path / "layers.csv"
    assert bench_layers.main(["--quick", "--optimizer", "adam", "--only", "mlp,hard", "--out", str(out)]) == 0
    assert {(row["case"], row["mode"]) for row in read(out)} == {("mlp", "step+adam")}
    for contender in contenders_of("linear32-first", adam=True):
        before = [parameter.detach().clone() for parameter in contender.parameters]
        contender.run()
        assert all(state["step"] == 1 for state in contender.optimizer.state.values())
        for old, parameter in zip(before, contender.parameters, strict=True):
            torch.testing.assert_close(parameter.detach(), old, rtol=0, atol=1e-11)


@NEEDS_L0
@pytest.mark.slow
def test_compiled_l0_python_takes_part(native):
    contenders = contenders_of("linear32-inner", names=["l0-python", "l0-python compiled", "l0fast"])
    if len(contenders) < 4:
        pytest.skip("torch.compile does not work here")
    layer_agreement.check(contenders[0].case, "step", contenders)
    assert 0 < contenders[2].bytes_kept() < contenders[1].bytes_kept()


def test_unknown_names_are_refused(capsys):
    for arguments, message in (
        (["--only", "linear5"], "got linear5"),
        (["--contenders", "keras"], "got keras"),
        (["--rounds", "0"], "got 0"),
    ):
        with pytest.raises(SystemExit):
            bench_layers.main(arguments)
        assert message in capsys.readouterr().err


def test_contenders_take_turns_and_two_rounds_are_dropped():
    order = []

    class Named:
        def __init__(self, name):
            self.run = lambda: order.append(name)

    samples = bench_layers.measure([Named(name) for name in "abc"], rounds=4)
    assert "".join(order) == "abcbca" + "abcbcacababc"
    assert [len(times) for times in samples] == [4, 4, 4]


def test_ratios_are_medians_of_the_rounds():
    class Named:
        mode = "eval"

        def __init__(self, name):
            self.name = name

    samples = [[1.0, 10.0, 1.0], [2.0, 20.0, 9.0], [4.0, 10.0, 1.0]]
    rows = bench_layers.rows_of(case_of("mlp"), [Named(n) for n in ("dense", "l0-python", "l0fast")], samples, "eval")
    assert [row["ratio_dense"] for row in rows] == ["1.000", "2.000", "1.000"]
    assert [row["ratio_eager"] for row in rows] == ["0.5000", "1.000", "0.5000"]
    assert [row["median"] for row in rows] == ["1000", "9000", "4000"]


# -- what is counted --------------------------------------------------------------------------------------------------


@NEEDS_L0
def test_bytes_kept_equal_a_count_by_hand(native):
    dense, peer, ours, composed = (c.bytes_kept() for c in contenders_of("linear32-first"))
    weight, seed = 32 * 24 * 4, 8
    assert dense == 0  # input and weight, which are there anyway
    assert ours == seed  # x needs no gradient, so not even the masked weight
    assert composed == weight + seed  # z
    assert peer == 4 * weight  # l0-python: logits held to the bound, sigmoid, stretched; p of the penalty
    _, _, inner, _ = (c.bytes_kept() for c in contenders_of("linear32-inner"))
    assert inner == weight + seed


def test_tensors_kept_by_a_node_as_attributes_are_found():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.hidden, ctx.more = x * 2, (x * 3, "text")
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    x = torch.ones(5, requires_grad=True)
    held = layer_contenders.held_by_nodes(Hidden.apply(x) + 1)
    assert sorted(tensor[0].item() for tensor in held) == [2, 3]


# -- who is timed -----------------------------------------------------------------------------------------------------


@NEEDS_L0
@pytest.mark.parametrize("key", ["linear32-inner", "conv-channel", "conv-weight", "mlp"])
def test_contenders_agree(key, native):
    for mode in ("step", "forward", "eval"):
        contenders = contenders_of(key, mode)
        assert "outputs agree" in layer_agreement.check(contenders[0].case, mode, contenders)


def planted(key, change, mode="step"):
    """The contenders with something wrong in the last one."""
    contenders = contenders_of(key, mode, ["l0-python", "l0fast"])
    change(contenders[-1])
    return contenders[0].case, mode, contenders


def wrong_temperature(contender):
    contender.module.gates.temperature = 0.6


def wrong_penalty(contender):
    right = contender.outputs
    contender.outputs = lambda x: (right(x)[0], right(x)[1] * 1.001)


def wrong_output(contender):
    right = contender.outputs
    contender.outputs = lambda x: (right(x)[0] * 1.001, *right(x)[1:])


def wrong_dtype(contender):
    right = contender.outputs
    contender.outputs = lambda x: tuple(output.double() for output in right(x))


def always_open(contender):
    """In training only, so that nothing but the draws can tell."""
    right, dense = contender.outputs, torch.nn.functional.linear
    module = contender.module
    contender.outputs = lambda x: (
        (dense(x, module.weight, module.bias) + 0 * module.gates.qz_logits.sum(), right(x)[1])
        if module.training
        else right(x)
    )


def penalty_without_gradient(contender):
    right = contender.outputs

    def outputs(x):
        y, penalty = right(x)
        return y, penalty.detach() + 0 * y.sum()

    contender.outputs = outputs


def no_gradient_of_gates(contender):
    """The penalty goes nowhere either: there is no gradient to compare."""
    contender.module.gates.qz_logits.requires_grad_(False)
    right = contender.outputs
    contender.outputs = lambda x: (right(x)[0], right(x)[1] + 0 * contender.module.weight.sum())


def wrong_gradient(contender):
    contender.module.weight.register_hook(lambda grad: grad * 1.5)


WRONG = [
    *(wrong_temperature, wrong_penalty, wrong_output, wrong_dtype, wrong_gradient),
    *(always_open, penalty_without_gradient, no_gradient_of_gates),
]


@NEEDS_L0
@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_contender_is_not_timed(change, native):
    with pytest.raises(DisagreementError, match=r"l0fast on linear512-first: .* nothing was timed"):
        layer_agreement.check(*planted("linear512-first", change))


@NEEDS_L0
def test_a_wrong_contender_ends_the_run(tmp_path, monkeypatch, native, capsys):
    monkeypatch.setattr(common.l0fast.L0Linear, "forward", lambda layer, x: x @ layer.weight.t())
    out = tmp_path / "x.csv"
    assert bench_layers.main(["--quick", "--only", "linear32", "--out", str(out)]) == 1
    assert "nothing was timed" in capsys.readouterr().err and not out.exists()
