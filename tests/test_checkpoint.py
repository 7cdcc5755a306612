import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights

N_TARGETS, N_RECORDS = 20, 300
FIT = {"lambda_l0": 1e-4, "lr": 0.1, "loss_type": "relative"}


def problem():
    generator = np.random.default_rng(7)
    M = sp.random(N_TARGETS, N_RECORDS, density=0.2, format="csr", random_state=generator)
    return M, M @ generator.uniform(0.5, 1.5, N_RECORDS)


def make(**options):
    return SparseCalibrationWeights(N_RECORDS, **{"beta": 0.35, "seed": 5, "log_weight_jitter_sd": 0.05, **options})


def test_resumed_in_a_new_model_equals_one_run(tmp_path):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    make().fit(M, y, epochs=40, **FIT).save_checkpoint(path)
    torch.manual_seed(77)
    resumed = make().load_checkpoint(path).fit(M, y, epochs=60, resume=True, **FIT)
    whole = make().fit(M, y, epochs=100, **FIT)
    assert torch.equal(resumed.log_weight, whole.log_weight) and torch.equal(resumed.log_alpha, whole.log_alpha)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    assert torch.equal(resumed.get_weights(), whole.get_weights()), "the generator was saved too"


def test_file_is_plain_safetensors(tmp_path):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    make().fit(M, y, epochs=4, checkpoint=path, **FIT)
    with safe_open(path, framework="pt") as file:
        assert {"log_weight", "log_alpha", "seed", "history", "generator"} < set(file.keys())
        assert file.metadata()["epoch"] == "4"
        assert json.loads(file.metadata()["signature"])["loss_type"] == "relative"
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no passing file is left behind"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (dict(M=sp.random(N_TARGETS, N_RECORDS, density=0.1, random_state=0)), "M"),
        (dict(y=np.arange(N_TARGETS) + 5.0), "y"),
        (dict(lambda_l0=1e-3), "lambda_l0"),
        (dict(lr=0.2), "lr"),
        (dict(loss_type="mse"), "target_scales"),
        (dict(target_weights=2.0), "target_weights or target_groups"),
    ],
)
def test_another_problem_is_refused_by_name(tmp_path, change, name):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    make().fit(M, y, epochs=4, **FIT).save_checkpoint(path)
    model = make().load_checkpoint(path)
    before = model.log_weight.detach().clone()
    with pytest.raises(ValueError, match=f"checkpoint .*: {name} is not that of the saved run"):
        model.fit(**{"M": M, "y": y, **FIT, "epochs": 4, "resume": True, **change})
    assert torch.equal(model.log_weight, before)


@pytest.mark.parametrize(
    ("options", "name"), [(dict(beta=0.5), "beta"), (dict(use_gates=False), "use_gates"), (dict(zeta=1.2), "zeta")]
)
def test_another_model_is_refused_by_name(tmp_path, options, name):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    make().fit(M, y, epochs=4, **FIT).save_checkpoint(path)
    with pytest.raises(ValueError, match=f"checkpoint .*: {name} is"):
        make(**options).load_checkpoint(path)
    with pytest.raises(ValueError, match="n_features is 300 there, 299 in this model"):
        SparseCalibrationWeights(299, beta=0.35).load_checkpoint(path)


def test_unreadable_files(tmp_path):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    with pytest.raises(FileNotFoundError):
        make().load_checkpoint(path)
    make().fit(M, y, epochs=4, **FIT).save_checkpoint(path)
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            make().load_checkpoint(path)
    with pytest.raises(ValueError, match="expected a run to save"):
        make().save_checkpoint(path)


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    M, y = problem()
    path = tmp_path / "run.safetensors"
    model = make().fit(M, y, epochs=4, **FIT)
    model.save_checkpoint(path)
    content = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_checkpoint(path)
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


KILLED = """
import sys; sys.path.insert(0, {tests!r})
from test_checkpoint import FIT, make, problem
make().fit(*problem(), epochs=2_000_000, checkpoint={path!r}, checkpoint_freq=50, **FIT)
"""


def test_killed_run_resumes_to_the_same_weights(tmp_path):
    """SIGKILL midway: the checkpoint on disk continues to the very weights of a run that was not killed."""
    M, y = problem()
    path = tmp_path / "run.safetensors"
    code = KILLED.format(tests=str(__file__).rsplit("/", 1)[0], path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait()
    model = make().load_checkpoint(path)
    done = model.epoch
    assert done % 50 == 0 and 0 < done < 2_000_000
    model.fit(M, y, epochs=30, resume=True, **FIT)
    whole = make().fit(M, y, epochs=done + 30, **FIT)
    assert torch.equal(model.log_weight, whole.log_weight) and torch.equal(model.log_alpha, whole.log_alpha)


def test_a_generator_of_another_device_is_left_behind_and_said(tmp_path):
    """A CUDA generator's state has 16 bytes, a CPU generator's thousands: neither can take the other's."""
    M, y = problem()
    model = make()
    model.fit(M, y, epochs=3, checkpoint=tmp_path / "run", **FIT)
    with safe_open(tmp_path / "run", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    save_file({**tensors, "generator": torch.zeros(16, dtype=torch.uint8)}, tmp_path / "elsewhere", metadata)
    there = make(seed=4)
    state = there._generator.get_state()
    with pytest.warns(RuntimeWarning, match=r"elsewhere: saved on another kind of device than cpu; the run continues"):
        there.load_checkpoint(tmp_path / "elsewhere")
    assert torch.equal(there._generator.get_state(), state)
    model.fit(M, y, epochs=3, resume=True, **FIT)
    there.fit(M, y, epochs=3, resume=True, **FIT)
    assert torch.equal(there.log_alpha, model.log_alpha)


def test_a_file_from_before_record_budgets_is_read(tmp_path):
    M, y = problem()
    old, path = tmp_path / "old.safetensors", tmp_path / "run.safetensors"
    make().fit(M, y, epochs=40, **FIT).save_checkpoint(path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    tensors["history"] = tensors["history"][:, :4].contiguous()
    signature = json.loads(metadata["signature"])
    del metadata["steering"], signature["target_records"]
    save_file(tensors, old, {**metadata, "signature": json.dumps(signature)})
    resumed = make().load_checkpoint(old).fit(M, y, epochs=60, resume=True, **FIT)
    whole = make().fit(M, y, epochs=100, **FIT)
    assert torch.equal(resumed.log_alpha, whole.log_alpha)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(resumed.history[name], values)
