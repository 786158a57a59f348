"""A classifier's identity: a hash of its weights."""

import hashlib

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer, as hex.

    The same weights give the same fingerprint on any device and in any mode; other weights, one more class or half
    precision give another. Buffers left out of the state dict are left out here. The prefix that ``DataParallel``,
    ``DistributedDataParallel`` and ``torch.compile`` put before names does not count.

    >>> fingerprint(nn.Linear(2, 2)) == fingerprint(nn.Linear(2, 2))
    False
    """
    whole = hashlib.sha256()
    for name, tensor in sorted((_bare(name), tensor) for name, tensor in model.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        whole.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        whole.update(_bytes(tensor))
    return whole.hexdigest()


def _bare(name: str) -> str:
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
