"""What materialize and compact return exports as any ordinary model does."""

import warnings

import pytest
import torch
from pruning_models import NETWORKS, assert_same, leaves, network

from l0fast.pruning import compact, materialize

WAYS = {"materialize": lambda model, x: materialize(model), "compact": lambda model, x: compact(model, x)[0]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_export(name, way):
    model, draw = network(name)
    x = draw()
    made = WAYS[way](model, x)
    program = torch.export.export(made, (x,))
    x = draw()
    assert_same(program.module()(x), model.eval()(x))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["plain", "residual", "concat", "mobile", "text"])
def test_onnx_runtime(name, way, dynamo, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, draw = network(name)
    x = draw()
    made = WAYS[way](model, x)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.onnx.export(made, (x,), str(path), dynamo=dynamo, **({"verbose": False} if dynamo else {}))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = draw()
    outputs = [torch.from_numpy(value) for value in session.run(None, {session.get_inputs()[0].name: x.numpy()})]
    assert_same(outputs, leaves(model.eval()(x)))
