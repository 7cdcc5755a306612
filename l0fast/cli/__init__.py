"""The ``l0fast`` command: calibrate, check, compare, demo, info.

Exit codes: 0 done; 1 ran but missed a --require; 2 bad input or a file that could not be written, with one line on
stderr; 3 a fault of l0fast itself, with a traceback; 4 (under torchrun) another process has ended; 130 interrupted.
"""

import argparse
import sys
import traceback
import warnings

from .files import InputError
from .options import build_parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. ``arguments`` default to those of the process."""
    options = build_parser(_command).parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return options.run(options)
    except InputError as error:
        return _complain(f"error: {error}", 2)
    except MemoryError as error:
        return _complain(f"error: out of memory: {error}" if str(error) else "error: out of memory", 2)
    except KeyboardInterrupt as error:
        return _complain(f"interrupted {error}".rstrip(), 130)
    except Exception:
        traceback.print_exc()
        return 3


def _command(name: str):
    """The function of a command; modules are imported when they are needed, so that --help is quick."""

    def run(options: argparse.Namespace) -> int:
        if name == "info":
            from .info import info as command
        elif name == "demo":
            from .demo import demo as command
        elif name == "compare":
            from .compare import compare as command
        elif name == "frontier":
            from .frontier import frontier as command
        elif name == "check":
            from .check import check as command
        else:
            from .calibrate import calibrate as command
        return command(options)

    return run


def _complain(text: str, code: int) -> int:
    print("l0fast: " + " ".join(text.split("\n")), file=sys.stderr)
    return code


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _complain(f"warning: {message}", 0)
