"""Files that are there whole or not at all."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dracones.files.writers import is_abandoned, writer

_SUFFIX = ".partial"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write to; it takes the path's place at the end of the block, if nothing went wrong.

    Makes the folder where it is missing. A failure leaves what was at the path before. A link stays a link: what it
    points to is replaced. A file that was there keeps its mode. What killed runs left beside it is swept.

    Raises:
        OSError: the disk refuses, or a folder, device or pipe is in the place.
    """
    target = Path(path)
    temporary = None
    try:
        target = _regular(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target) + writer(), suffix=_SUFFIX)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        message = f"could not write {path} ({error.strerror or error}); what was there before is untouched"
        raise OSError(message) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write bytes atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def sweep(target: Path) -> None:
    """Remove what killed runs left of this file.

    A temporary file names its writer, so that a file that is being written to is told from one that is left.
    """
    for left in target.parent.glob(f"{_escaped(_prefix(target))}*{_SUFFIX}"):
        with suppress(OSError):
            if is_abandoned(left.name.removeprefix(_prefix(target)), left.stat().st_mtime):
                left.unlink()


def _regular(path: Path) -> Path:
    """The path with its links followed; refused where something other than a file is in the place."""
    resolved = Path(os.path.realpath(path))
    if resolved.exists() and not resolved.is_file():
        what = "a folder" if resolved.is_dir() else "a device or pipe"
        raise OSError(f"{what} is in its place, and only files are replaced")
    return resolved


def _prefix(target: Path) -> str:
    return f".{target.name[:80]}."


def _escaped(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _mode(target: Path) -> int:
    """The mode of the file that is replaced; an ordinary one for a new file (mkstemp lets nobody else read)."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _flush_folder(folder: Path) -> None:
    """Have the disk hold the folder's entries; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
