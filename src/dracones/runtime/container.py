"""The one file: an ONNX graph that carries its own description, its digest, and inputs with expected outputs."""

import base64
import hashlib
import io
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
FACTS, CHECKS, TREATMENT, DIGEST = "dracones", "dracones_checks", "dracones_treatment", "dracones_digest"
PLACEHOLDER = "sha256:" + "0" * 64
_SEALED = re.compile(rb"sha256:[0-9a-f]{64}")


class UnfitFileError(ValueError):
    """A file that must not score: foreign, cut off, edited, newer, or failing its own check."""


@dataclass(frozen=True)
class Checks:
    """Images and what the model said of them when it was exported.

    Attributes:
        images: ``[B, C, H, W]`` uint8.
        outputs: expected outputs by name; of a map every ``stride``-th row and column.
        stride: of the stored maps.
    """

    images: NDArray[np.uint8]
    outputs: Mapping[str, NDArray[Any]]
    stride: int

    def to_text(self) -> str:
        """As text that fits into a file's metadata."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {f"out_{name}": values for name, values in self.outputs.items()}
        np.savez(stream, images=self.images, stride=self.stride, **arrays)
        return base64.b64encode(zlib.compress(stream.getvalue(), 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Checks":
        """Back from `to_text`."""
        with np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False) as held:
            outputs = {name.removeprefix("out_"): held[name] for name in held.files if name.startswith("out_")}
            return cls(held["images"], outputs, int(held["stride"]))


def seal(data: bytes, beside: bytes = b"") -> bytes:
    """A file's bytes with their own SHA-256, and of what lies beside it, in the place of `PLACEHOLDER`, there once.

    >>> sealed = seal(b"graph " + PLACEHOLDER.encode())
    >>> is_whole(sealed), is_whole(sealed.replace(b"graph", b"grape"))
    (True, False)
    """
    placeholder = PLACEHOLDER.encode()
    if data.count(placeholder) != 1:
        raise ValueError(f"a file to seal holds the placeholder once; got {data.count(placeholder)}")
    return data.replace(placeholder, b"sha256:" + hashlib.sha256(data + beside).hexdigest().encode())


def is_whole(data: bytes, beside: bytes = b"") -> bool:
    """Whether a sealed file, and what lies beside it, is still what was sealed."""
    for found in _SEALED.finditer(data):
        blank = data[: found.start()] + PLACEHOLDER.encode() + data[found.end() :]
        if hashlib.sha256(blank + beside).hexdigest().encode() == found.group()[7:]:
            return True
    return False


def facts_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description in a file's metadata.

    Raises:
        UnfitFileError: no file of dracones, or one of a newer format.
    """
    if FACTS not in metadata:
        raise UnfitFileError(f"{path} is a graph, but not one that `dracones export` wrote: it has no description")
    facts: dict[str, Any] = json.loads(metadata[FACTS])
    if facts["format"] > FORMAT:
        raise UnfitFileError(
            f"{path} has format {facts['format']}, and this version of dracones reads up to {FORMAT}; update dracones, "
            "or export again with this version"
        )
    return facts
