"""l0fast under the name ``l0``, for programs that say ``from l0.layers import L0Linear`` and are not to be edited."""

import importlib
import sys

PACKAGE, ALIAS = "l0fast", "l0"
SUBMODULES = ("calibration", "distributions", "gates", "layers", "penalties", "sparse")
"""The modules of l0-python."""


def install_as_l0(replace: bool = False) -> None:
    """From here on ``import l0`` gives l0fast, and ``l0.layers``, ``l0.gates`` and the others its submodules.

    Call it before anything imports ``l0``. Calling it again changes nothing. Whole models that l0-python has pickled
    (``torch.save(model, path)``) then load as l0fast's classes with ``torch.load(path, weights_only=False)``: do that
    with files you trust only, for unpickling runs code. State dicts need none of this.

    Args:
        replace: True drops another ``l0`` that is already imported. Objects made from it before keep its classes.

    Raises:
        RuntimeError: another package named ``l0`` is already imported, and ``replace`` is False.
    """
    importlib.import_module(PACKAGE)
    for name in SUBMODULES:
        importlib.import_module(f"{PACKAGE}.{name}")
    # All that is loaded, not only SUBMODULES: a file imported under both names would make its classes twice.
    ours = {ALIAS + name.removeprefix(PACKAGE): sys.modules[name] for name in _loaded(PACKAGE)}
    others = [name for name in sorted(_loaded(ALIAS)) if sys.modules[name] is not ours.get(name)]
    if others and not replace:
        place = getattr(sys.modules[others[0]], "__file__", None) or "an unknown place"
        raise RuntimeError(
            f"install_as_l0: another package named {ALIAS!r} is already imported ({others[0]} from {place}); "
            "call install_as_l0() before the first import of it, or pass replace=True"
        )
    for name in others:
        del sys.modules[name]
    sys.modules.update(ours)


def uninstall_as_l0() -> None:
    """Undoes :func:`install_as_l0`: the next ``import l0`` looks for an installed package again."""
    for name in _loaded(ALIAS):
        if sys.modules[name] is sys.modules.get(PACKAGE + name.removeprefix(ALIAS)):
            del sys.modules[name]


def _loaded(package: str) -> list[str]:
    """Names of the package and of its submodules that are imported."""
    return [name for name in sys.modules if name == package or name.startswith(package + ".")]
