"""Open gates drawn from a generator of one's own, with torch's global one left as it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import ops
from ..distributions import HardConcrete


def sampled_gates(gates: nn.Module, generator: torch.Generator) -> Tensor:
    """``gates()``, with noise that depends on the (CPU) generator alone: the same on every device.

    HardConcrete takes its noise as an argument. Any other module, or a HardConcrete with methods or hooks of its own,
    is called with torch's global generators seeded for the time of the call.
    """
    if isinstance(gates, HardConcrete) and gates.is_plain():
        if not gates.training:
            return gates()
        seed = torch.randint(0, 2**63 - 1, (1,), generator=generator, device="cpu").to(gates.qz_logits.device)
        return ops.hard_concrete(gates.qz_logits, seed, **gates._gate_options())
    with reseeded(generator, devices={p.device for p in gates.parameters()}):
        return gates()


@contextmanager
def reseeded(generator: torch.Generator, devices: set[torch.device]) -> Iterator[None]:
    """Inside, torch's global generators of the CPU and of these devices' kinds start from a number of the generator.

    Afterwards they are as they were.
    """
    seed = int(torch.randint(0, 2**63 - 1, (), generator=generator, device="cpu"))
    kinds = sorted({device.type for device in devices} - {"cpu", "meta"})
    if not kinds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    module = torch.get_device_module(kinds[0])
    with torch.random.fork_rng(devices=list(range(module.device_count())), device_type=kinds[0]):
        torch.default_generator.manual_seed(seed)
        module.manual_seed_all(seed)
        yield
