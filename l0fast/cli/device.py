"""The --device option: whether it can be used, and whether a problem fits into its memory."""

import torch

from ..calibration import memory
from .files import InputError


def device_kind(name: str) -> str:
    """'cpu' or 'cuda', whether there is such a device here or not.

    Raises:
        InputError: another kind, or no device's name at all.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise InputError(f"--device: cannot use {name}: {str(error).splitlines()[0]}") from None
    if kind not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu or cuda, got {name}")
    return kind


def check_device(name: str) -> torch.device:
    """The device, if tensors can be made on it.

    Raises:
        InputError: they cannot.
    """
    device_kind(name)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device: cannot use {name}: {str(error).splitlines()[0]}") from None


def out_of_memory(name: str, error: torch.OutOfMemoryError) -> InputError:
    """What torch says when an allocation fails after all, in one line."""
    return InputError(f"--device: out of memory on {name}: {str(error).splitlines()[0]}")


def absent(name: str) -> str | None:
    """Why there is no CUDA device here at all, in words; None for the CPU and where there is one."""
    if device_kind(name) == "cpu" or torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    return f"torch has CUDA {torch.version.cuda} but sees no GPU"


def memory_lines(name: str, needed: memory.DeviceBytes) -> list[str]:
    """What a fit takes on a CUDA device, and what is free there."""
    lines = [f"memory on {name} about {memory.size_text(needed.total)}: {needed}"]
    if reason := absent(name):
        return [*lines, f"no device to compare that with: {reason}"]
    return [*lines, f"free on {name}: {memory.size_text(memory.free_bytes(check_device(name)))}"]


def check_room(name: str, needed: memory.DeviceBytes) -> None:
    """Raises MemoryError if the device is here and has too little memory; see calibration.memory.require."""
    if device_kind(name) == "cuda" and absent(name) is None:
        memory.require(needed, check_device(name))
