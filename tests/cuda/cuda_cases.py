"""What the tests of this folder share: an op on the device against the CPU's, against plain torch and float64."""

import torch
from compare import assert_as_good_as_torch

from l0fast import ops, reference


def large(device: torch.device) -> int:
    """Many blocks on a GPU; few on a CPU, where an emulator may run every thread."""
    return 3_000_017 if device.type == "cuda" else 20_011


def check(call, device: torch.device, names, masks=None) -> list[torch.Tensor]:
    """``call(functions, dtype, device)`` gives a result for each name; returns those of the device, on the CPU.

    They are compared with float64 by the tolerance rule, and with the CPU kernels to a few roundings; masks picks the
    elements of a result that are away from kinks.
    """
    got = [t.detach().cpu() for t in call(ops, torch.float32, device)]
    on_cpu, plain, truth = (
        [t.detach() for t in call(functions, dtype, "cpu")]
        for functions, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64))
    )
    for k, name in enumerate(names):
        mask = (masks or {}).get(name, slice(None) if got[k].dim() else ...)
        ours, cpu, torchs, true = (results[k][mask] for results in (got, on_cpu, plain, truth))
        assert_as_good_as_torch(ours, torchs, true, name)
        scale = float(true.abs().max()) if true.numel() else 0.0
        torch.testing.assert_close(ours, cpu, rtol=1e-5, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")
    return got


def misaligned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same numbers, contiguous, one element after the beginning of their memory."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=device)
    room[1:] = tensor.to(device).flatten()
    return room[1:].view(tensor.shape)


def same_bits(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
