"""Digests of images that a detector has met, kept beside its calibration in bounded size."""

import base64
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
UNREADABLE = 0
"""Stands for the digest of an image that cannot be read."""

_KEPT = 2**16


@dataclass(frozen=True)
class Met:
    """A set of digests of bounded size: of more than 65,536 images, those with the smallest digests are kept.

    As a digest is as good as a random number, that is a sample of the images, and a share is estimated from it.
    """

    kept: Digests

    @classmethod
    def of(cls, found: Digests) -> Self:
        """The distinct digests of readable images, at most 65,536 of them."""
        distinct = np.unique(found[found != UNREADABLE])
        return cls(distinct[:_KEPT])

    def holds(self, found: Digests) -> NDArray[np.bool_]:
        """Which of these digests are known to be among the images."""
        return np.isin(found, self.kept)

    def share(self, found: Digests) -> float:
        """Share of the distinct images that are among these; estimated where only a sample was kept."""
        distinct = np.unique(found[found != UNREADABLE])
        if len(self.kept) == _KEPT:
            distinct = distinct[distinct <= self.kept[-1]]
        return float(np.isin(distinct, self.kept).mean()) if len(distinct) else 0.0

    def text(self) -> str:
        """What `from_text` reads: the digests, 8 bytes each, little-endian, in base 64."""
        return base64.b64encode(self.kept.astype("<u8").tobytes()).decode()

    @classmethod
    def from_text(cls, text: Any) -> Self:
        """Rebuild from `text`; nothing is known where a detector was fitted before digests were kept."""
        raw = base64.b64decode(text) if isinstance(text, str) else b""
        return cls(np.frombuffer(raw[: len(raw) // 8 * 8], dtype="<u8").astype(np.uint64))
