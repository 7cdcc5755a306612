"""Whole objects that l0-python has pickled become l0fast's, and compute the same. Each side has its own process."""

from test_compat import NEEDS_L0, run

SHARED = """
import sys
import warnings
import numpy as np, torch
from scipy import sparse as sp
warnings.filterwarnings("ignore")
M = sp.random(6, 12, density=0.5, format="csr", random_state=np.random.default_rng(0))
x, images = torch.linspace(-1, 1, 72).view(6, 12), torch.linspace(-1, 1, 192).view(1, 3, 8, 8)

def results(o):
    return {
        "mlp": o["mlp"](x), "conv": o["conv"](images), "channels": o["channels"](images),
        "depthwise": o["depthwise"](images), "gates": o["gates"](), "features": o["features"].apply_gates(x, 1),
        "hybrid": o["hybrid"].select(x.T, random_seed=1)[1], "linear": o["linear"].predict(M),
        "weights": o["weights"].predict(M), "schedule": torch.tensor(o["schedule"].get_temperature(3)),
        "tracker": torch.tensor(o["tracker"].get_history("loss")),
    }
"""
SAVE = """
import l0
torch.manual_seed(0)
objects = {
    "mlp": l0.SparseMLP(12, 5, 3, use_l2=True), "conv": l0.L0Conv2d(3, 2, 3), "depthwise": l0.L0DepthwiseConv2d(3, 3),
    "channels": l0.L0Conv2d(3, 4, 3, structured=True), "gates": l0.HardConcrete(3, 2, temperature=0.3),
    "features": l0.FeatureGate(12, 8, temperature=0.4), "hybrid": l0.HybridGate(12, target_items=8),
    "linear": l0.SparseL0Linear(12, seed=1), "weights": l0.SparseCalibrationWeights(12, seed=1),
    "schedule": l0.TemperatureScheduler(), "tracker": l0.PenaltyTracker(),
}
for thing in objects.values():
    if isinstance(thing, torch.nn.Module):
        thing.eval()
        for p in thing.parameters():
            torch.nn.init.normal_(p)
objects["weights"].fit(M, M @ np.ones(12), epochs=3)
objects["tracker"].log("loss", 0.5)
torch.save((objects, results(objects)), sys.argv[1])
"""
LOAD = """
import l0fast
l0fast.install_as_l0()
objects, expected = torch.load(sys.argv[1], weights_only=False)
assert {type(thing).__module__.split(".")[0] for thing in objects.values()} == {"l0fast"}
for name, value in results(objects).items():
    torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")
for name in ("mlp", "conv", "channels", "depthwise"):
    objects[name].train()(x if name == "mlp" else images).sum().backward()
l0fast.update_temperatures(objects["mlp"], 0.1)
assert objects["features"].temperature == 0.4 and objects["mlp"].fc1.weight_gates.temperature == 0.1
objects["linear"].fit(M, np.ones(6), epochs=2)
objects["weights"].fit(M, np.ones(6), epochs=2)
assert objects["schedule"].state_dict()["last_epoch"] == 0
torch.save(objects, sys.argv[1])
torch.load(sys.argv[1], weights_only=False)
print("loaded", len(objects))
"""


@NEEDS_L0
def test_pickled_objects_become_l0fasts(tmp_path):
    run(SHARED + SAVE, tmp_path / "objects.pt")
    assert run(SHARED + LOAD, tmp_path / "objects.pt") == "loaded 11\n"
