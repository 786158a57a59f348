"""Every random number of a run as a function of its seed and its place in the run.

Nothing random has a state that would have to be saved: the generator of step 17 is seeded from (seed, "step", 17),
so a resumed run draws what the undisturbed one drew.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from the names and numbers that say what it is for.

    Example:
        >>> derive_seed(0, "step", 17) == derive_seed(0, "step", 17)
        True
        >>> derive_seed(0, "step", 17) == derive_seed(0, "step", 18)
        False
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the global generators that dropout reads, on the CPU and on the device in use (and on no other)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def seed_item(seed: int) -> None:
    """Seed the three global generators that a dataset's augmentation may read."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - other people's augmentations read it


@contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were found, whatever the block draws from them."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - only to put it back
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - as found
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)
