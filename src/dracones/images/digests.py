"""Hashes of images' content."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dracones.images.limits import UnreadableImage
from dracones.images.prefetch import in_order

UNREADABLE = b"unreadable"
"""In place of the hash of an image that cannot be read."""


def digest_of_bytes(data: bytes) -> bytes:
    """A hash of 20 bytes."""
    return hashlib.blake2b(data, digest_size=20).digest()


def digest_of_array(array: np.ndarray) -> bytes:
    """A hash of the values, their type and shape."""
    state = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=20)
    state.update(np.ascontiguousarray(array).data)
    return state.digest()


def digests_of(
    digest: Callable[[int], bytes],
    indices: Sequence[int],
    workers: int,
    unreadable: Callable[[UnreadableImage], None],
) -> Iterator[bytes]:
    """The hash of each image in order; what cannot be read is reported and hashed as such."""

    def attempt(index: int) -> bytes | UnreadableImage:
        try:
            return digest(index)
        except UnreadableImage as error:
            return error

    for result in in_order(attempt, indices, workers, ahead=4 * workers):
        if isinstance(result, UnreadableImage):
            unreadable(result)
            yield UNREADABLE
        else:
            yield result
