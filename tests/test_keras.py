"""The Keras layer, in a process of its own: Keras reads its backend from the environment once."""

import importlib.util
import os
import subprocess
import sys

import pytest

PROGRAM = """
import keras, numpy as np, torch
from l0fast import L0Activation
from l0fast.keras import L0Module

torch.manual_seed(0)
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
y = x[:, :1] + x[:, 1:2]
gated = L0Module(L0Activation(8, reg_const=0.05, init_sparsity=0.2))
model = keras.Sequential([keras.Input((8,)), gated, keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.05), "mse")
model.fit(x, y, epochs=40, batch_size=64, verbose=0)
gates = gated.module.gates
assert (gates.get_active_prob() > 0.5).tolist() == [True, True] + [False] * 6, gates.get_active_prob()
assert len(model.losses) == 1
first, second = model.predict(x[:5], verbose=0), model.predict(x[:5], verbose=0)
assert (first == second).all()
print("done")
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
def test_layer_trains_its_gates():
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
