"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path


def atomic_write(path: str | os.PathLike, content: bytes) -> None:
    """Writes content beside path under a passing name, flushes it to the disk and renames it.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; path is then as it was.
    """
    path = Path(path)
    handle, passing = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(passing, 0o666 & ~_umask())
        os.replace(passing, path)
    except BaseException:
        Path(passing).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """mkstemp makes private files; what is written here gets the permissions of an ordinary new file."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
