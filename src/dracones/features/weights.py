"""Weights matched to a backbone by key, refused with the keys that do not fit."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["WeightReport", "adapt_input_kernel", "load_weights"]


@dataclass(frozen=True)
class WeightReport:
    """What a weight file gave: `loaded` keys, `missing` (needed, so always empty once loaded), `unexpected` (unused).

    `adapted` names a first convolution whose kernels were spread over another number of input channels.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what in ("missing", "unexpected", "adapted"):
            keys = getattr(self, what)
            if keys:
                parts.append(f"{len(keys)} {what} ({_some(keys)})")
        return "; ".join(parts)


def _some(keys: tuple[str, ...] | list[str], count: int = 6) -> str:
    return ", ".join(keys[:count]) + (f", and {len(keys) - count} more" if len(keys) > count else "")


def adapt_input_kernel(kernel: Tensor, channels: int) -> Tensor:
    """Spread a first convolution's kernel `[O, I, k, k]` over `channels` inputs, cyclically, keeping its response.

    The kernels of R, G, B repeat over the new channels and are scaled by I / channels, so that an image whose
    channels are all equal gives what its RGB version gave (for one channel: the sum of the kernels).

    Example:
        >>> adapt_input_kernel(torch.ones(1, 3, 1, 1), 6).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    inputs = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeats = -(-channels // inputs)
    spread = kernel.repeat(1, repeats, 1, 1)[:, :channels]
    return spread * (inputs / channels)


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], known_keys: frozenset[str], source: str
) -> WeightReport:
    """Copy `state` into `network`, which may be only the lower part of the architecture that `state` belongs to.

    Keys match whether a wrapper wrote ``stages_0`` for ``stages.0`` or put ``model.`` in front. Unused keys of the
    upper layers and the classifier are allowed and reported.

    Args:
        network: what is filled, in place.
        state: the file's tensors; half precision is widened on copying.
        known_keys: keys of the whole architecture.
        source: the file's name, for messages.

    Raises:
        ValueError: a needed tensor is missing or has another shape, or the file holds layers inside the used part
            that this architecture does not have (a larger network's file); the message names the keys.
    """
    targets = {_plain(key): key for key in network.state_dict()}
    found = {_plain(key): key for key in state}
    current = network.state_dict()
    chosen: dict[str, Tensor] = {}
    adapted, misfits = [], []
    for plain, key in targets.items():
        if plain not in found:
            continue
        value, wanted = state[found[plain]], current[key].shape
        if value.shape != wanted and _differs_in_input(value, wanted):
            value = adapt_input_kernel(value.float(), wanted[1])
            adapted.append(found[plain])
        if value.shape != wanted:
            misfits.append(f"{found[plain]} {list(value.shape)}, expected {list(wanted)}")
        else:
            chosen[key] = value
    # A counter that frozen layers never read; many files leave it out.
    counter = "num_batches_tracked"
    missing = tuple(key for plain, key in targets.items() if plain not in found and not key.endswith(counter))
    unexpected = tuple(key for plain, key in found.items() if plain not in targets)
    known = {_plain(key) for key in known_keys}
    used_roots = {_plain(key, root=True) for key in targets.values()}
    foreign = [key for key in unexpected if _plain(key) not in known and _plain(key, root=True) in used_roots]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if misfits:
        problems.append(f"{len(misfits)} of another shape: {_some(misfits)}")
    if foreign:
        problems.append(f"{len(foreign)} that this architecture does not have: {_some(foreign)}")
    if problems:
        hint = _remedy(missing, found, fits=bool(chosen))
        raise ValueError(f"the weights in {source} do not fit the backbone: {'; '.join(problems)}{hint}")
    network.load_state_dict(chosen, strict=False)
    return WeightReport(tuple(chosen), missing, unexpected, tuple(adapted))


def _remedy(missing: tuple[str, ...], found: Mapping[str, str], *, fits: bool) -> str:
    """What may be wrong with a file that lacks tensors: of another network altogether, or of its lower part alone."""
    if not missing:
        return ""
    lacking = {_plain(key, root=True): key for key in missing}
    if fits and lacking.keys().isdisjoint(_plain(key, root=True) for key in found.values()):
        return f". The file has nothing of {', '.join(lacking)}: take levels that come before, or the whole file"
    return f". The file holds {_some(list(found.values()), 3)}: is it of another backbone?"


def _differs_in_input(value: Tensor, wanted: torch.Size) -> bool:
    """A 3-channel kernel where another number of input channels is wanted, all else equal."""
    return (
        value.ndim == 4
        and len(wanted) == 4
        and value.shape[1] == 3
        and wanted[1] != 3
        and value.shape[0] == wanted[0]
        and value.shape[2:] == wanted[2:]
    )


def _plain(key: str, *, root: bool = False) -> str:
    """A key without wrappers' spelling: ``model.stages_0.x`` and ``stages.0.x`` are the same tensor."""
    plain = key.removeprefix("network.").removeprefix("model.").removeprefix("body.").replace(".", "_")
    return plain.split("_", 1)[0] if root else plain
