"""The positions and names that HardConcrete takes: any number of sizes, or l0-python's order of arguments."""

from collections.abc import Sequence
from numbers import Integral, Real


class Default(float):
    """A number that knows that nobody passed it: an argument must not be given by name and by position."""


def merged(scalars: list, named: tuple) -> tuple:
    """Temperature, stretch and init_mean by position, where there are such, and by name."""
    if len(scalars) > 3:
        raise TypeError(f"expected at most temperature, stretch and init_mean after gate_size, got {scalars}")
    for name, value in list(zip(("temperature", "stretch", "init_mean"), named, strict=True))[: len(scalars)]:
        if not isinstance(value, Default):
            raise TypeError(f"{name}: expected it once, got {value} by name and another by position")
    return (*scalars, *named[len(scalars) :])


def named_sizes(sizes: list, input_dim: int | None, output_dim: int | None) -> list:
    """The sizes with l0-python's names for the first and the second of two."""
    if input_dim is not None:
        if sizes:
            raise TypeError(f"input_dim: expected it once, got {input_dim} by name and {sizes} by position")
        sizes = [input_dim]
    if output_dim is not None:
        if len(sizes) != 1:
            raise TypeError(f"output_dim: expected it after one size, got {output_dim} by name after {sizes}")
        sizes = [*sizes, output_dim]
    if not sizes:
        raise TypeError("gate_size: expected at least one size, got none")
    return sizes


def split_positions(arguments: tuple) -> tuple[list, list]:
    """Sizes, and what follows them in l0-python's order (input_dim, output_dim, temperature, stretch, init_mean)."""
    if len(arguments) == 1 and isinstance(arguments[0], Sequence):
        return list(arguments[0]), []
    if arguments[1:2] == (None,):  # l0-python's output_dim=None: what follows is no size
        return [arguments[0]], list(arguments[2:])
    for place, value in enumerate(arguments):
        if value is None or (isinstance(value, Real) and not isinstance(value, Integral)):
            scalars = min(place, 2)  # l0-python has two sizes at the most: in (10, 5, 1, 0.1) 1 is the temperature
            return list(arguments[:scalars]), list(arguments[scalars:])
    return list(arguments), []
