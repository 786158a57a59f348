"""A detector's file: one safetensors, its header a versioned JSON; written atomically, never unpickled."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 1
_KEY = "dracones"


@dataclass(frozen=True)
class StoredDetector:
    """What a file holds: its header and its tensors by name."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]


def write(path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors and header to ``path``; a full disk or a kill leaves a file that was there before whole.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the disk refused; the temporary file is removed.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first")
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {_KEY: json.dumps({"format": FORMAT, **header})}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        save_file(whole, temporary, metadata=metadata)
        _flush(temporary)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        _flush(path.parent)
    except (SafetensorError, OSError) as error:
        raise OSError(f"could not save {path}: {error}; a file that was there before is untouched") from error
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
    return path


def read(path: str | Path) -> StoredDetector:
    """Read a file that `write` made.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, truncated, not made by dracones, or made by a newer version.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        return StoredDetector(header, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header alone: method, configuration, preprocessing, calibration, provenance. Loads no tensor."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); it may be truncated or of another kind: copy it again"
        ) from None
    if _KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but dracones did not write it: its header has no {_KEY!r} entry"
        )
    header: dict[str, Any] = json.loads(metadata[_KEY])
    if header["format"] > FORMAT:
        raise ValueError(
            f"{path} has format {header['format']}, this dracones reads up to {FORMAT}; it was written by dracones "
            f"{header.get('provenance', {}).get('dracones', '?')}: install that version or newer"
        )
    return header


def _flush(path: str | Path) -> None:
    """Have the disk hold a file's bytes, or a folder's entries, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
