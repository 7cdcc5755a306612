"""Questions about modules that are not ours alone."""

from torch import nn


def checked_model(model) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return model


def unchanged(module: nn.Module, base: type, *names: str) -> bool:
    """Whether neither the module's class nor the module itself has replaced these methods of base."""
    return all(getattr(type(module), name) is getattr(base, name) and name not in module.__dict__ for name in names)
