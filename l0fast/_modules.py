"""Questions about modules that are not ours alone."""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def checked_model(model) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return model


def hooked(module: nn.Module) -> bool:
    """Whether calling the module runs more than its forward: hooks of its own, or of all modules."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or bool(_has_any_global_hook())


def unchanged(module: nn.Module, base: type, *names: str) -> bool:
    """Whether neither the module's class nor the module itself has replaced these methods of base."""
    return all(getattr(type(module), name) is getattr(base, name) and name not in module.__dict__ for name in names)
