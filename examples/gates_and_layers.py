"""Gates and the layers that have them: what goes in, what comes out, what they cost.

    python examples/gates_and_layers.py

Prints, for gates alone and for three kinds of layers on images of handwritten digits, the shape of the result, the
expected number of open gates (the L0 penalty) and the sparsity.
"""

import torch
from sklearn.datasets import load_digits

from l0fast import HardConcrete, L0Conv2d, L0DepthwiseConv2d, L0Linear

torch.manual_seed(0)
images = torch.tensor(load_digits().images[:32], dtype=torch.float32).unsqueeze(1) / 16  # [32, 1, 8, 8]

# Gates alone: numbers between 0 and 1, drawn anew in training, the same each time in evaluation.
gates = HardConcrete(256, 128, temperature=0.3, init_mean=0.8)
z = gates()
print(f"gates {list(z.shape)}: {(z == 0).float().mean():.0%} drawn as exactly 0, {(z == 1).float().mean():.0%} as 1")
print(f"  expected open: {gates.get_penalty():.0f} of {z.numel()}, sparsity {gates.get_sparsity():.1%}")
gates.eval()
print(f"  the same gates twice in evaluation: {torch.equal(gates(), gates())}")

# A linear layer with a gate on each weight, most of them nearly closed at the start.
linear = L0Linear(64, 50, temperature=0.5, init_sparsity=0.8, use_l2=True)
y = linear(images.flatten(1))
print(f"L0Linear {list(y.shape)}: {linear.get_l0_penalty():.0f} of {linear.weight.numel()} weights expected open")
print(f"  sparsity {linear.get_sparsity():.1%}, squared weights {linear.get_l2_penalty():.1f}")

# A convolution with one gate for each output channel: whole channels close.
conv = L0Conv2d(1, 16, kernel_size=3, structured=True, init_sparsity=0.7)
y = conv(images)
closed = (y - conv.bias.view(1, -1, 1, 1)).abs().amax(dim=(0, 2, 3)) == 0
print(f"L0Conv2d {list(y.shape)}: {conv.get_l0_penalty():.1f} of 16 channels expected open, {closed.sum()} closed now")

# A filter of its own for each channel, and a gate on each.
depthwise = L0DepthwiseConv2d(16, kernel_size=3, padding=1)
y = depthwise(y)
print(f"L0DepthwiseConv2d {list(y.shape)}: {depthwise.get_l0_penalty():.1f} of 16 channels expected open")
