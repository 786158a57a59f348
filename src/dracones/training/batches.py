"""From a map-style dataset to batches, without touching items one by one where they already lie in memory."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from dracones.training.seeds import derive_seed, seed_item

_FINGERPRINT_ITEMS = 16
_FINGERPRINT_BYTES = 2**26


class Batches:
    """Batches of a dataset by their indices.

    What the dataset is decides how a batch is read. A tensor, a list or tuple of tensors of one length, or a
    `TensorDataset` is indexed as a whole (a `TensorDataset` of one tensor gives that tensor, not a list of one). An
    object with `batch(indices) -> batch`, or with PyTorch's `__getitems__`, is asked for the batch. Any other map-style
    dataset is read item by item and collated.

    Example:
        >>> Batches(torch.arange(6.0)).read(torch.tensor([4, 1]))
        tensor([4., 1.])
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, DataLoader | IterableDataset):
            raise TypeError(
                f"training needs items it can ask for by index; got {type(dataset).__name__}: "
                "pass the dataset itself (a map-style Dataset, a tensor, or several of one length)"
            )
        self.dataset = dataset
        self._whole = _whole_tensors(dataset)
        if self._whole is not None:
            lengths = {len(tensor) for tensor in leaves(self._whole)}
            if len(lengths) != 1:
                raise ValueError(f"the tensors of a dataset must have one length; got {sorted(lengths)}")
            self.count = lengths.pop()
        elif hasattr(dataset, "__len__") and (hasattr(dataset, "__getitem__") or hasattr(dataset, "batch")):
            self.count = len(dataset)
        else:
            raise TypeError(
                f"training needs a map-style dataset with a length and items by index; got {type(dataset).__name__}"
            )

    @property
    def in_memory(self) -> bool:
        """Whether a batch is one indexing of whole tensors."""
        return self._whole is not None

    def keep_on(self, device: torch.device, share: float) -> None:
        """Move whole tensors to a GPU once, so that no step has to, where they take at most a share of what is free."""
        if self._whole is not None:
            needed = sum(leaf.nbytes for leaf in leaves(self._whole))
            if needed <= share * torch.cuda.mem_get_info(device)[0]:
                self._whole = move(self._whole, device)

    def read(self, indices: Tensor, seed: int = 0) -> Any:
        """The batch at some indices; `seed` and the index fix what an item's augmentation draws."""
        if isinstance(self._whole, Tensor):
            return self._whole[indices.to(self._whole.device)]
        if self._whole is not None:
            return [tensor[indices.to(tensor.device)] for tensor in self._whole]
        if hasattr(self.dataset, "batch"):
            seed_item(derive_seed(seed, "batch", int(indices[0])))
            return self.dataset.batch(indices)
        if hasattr(self.dataset, "__getitems__"):
            seed_item(derive_seed(seed, "batch", int(indices[0])))
            return default_collate(self.dataset.__getitems__(indices.tolist()))
        return default_collate([self._item(index, seed) for index in indices.tolist()])

    def _item(self, index: int, seed: int) -> Any:
        seed_item(derive_seed(seed, "item", index))
        return self.dataset[index]

    def stream(self, plan: Iterable[tuple[Tensor, int]], *, workers: int = 0, pin: bool = False) -> Iterator[Any]:
        """The batches of a plan of (indices, seed), read ahead by worker processes where asked."""
        if workers == 0 or self.in_memory:
            return (self.read(indices, seed) for indices, seed in plan)
        # The generator is only there so that the loader does not draw its base seed from the global one.
        loader = DataLoader(
            _Planned(self), sampler=_Plan(plan), batch_size=None, num_workers=workers, pin_memory=pin,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return iter(loader)

    def fingerprint(self) -> str:
        """A hash that changes with the data: all of it, or samples where it is large or not in memory."""
        own = getattr(self.dataset, "fingerprint", None)
        if callable(own):
            return str(own())
        digest = hashlib.blake2b(f"{self.count}".encode(), digest_size=16)
        if self._whole is not None:
            for leaf in leaves(self._whole):
                _digest_tensor(digest, _sample(leaf))
        else:
            for place in torch.linspace(0, self.count - 1, min(_FINGERPRINT_ITEMS, self.count)).long():
                for leaf in leaves(self.read(place[None])):
                    _digest_tensor(digest, leaf)
        return digest.hexdigest()


class _Plan(torch.utils.data.Sampler[tuple[Tensor, int]]):
    def __init__(self, plan: Iterable[tuple[Tensor, int]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter(self.plan)


class _Planned(Dataset[Any]):
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, key: tuple[Tensor, int]) -> Any:
        return self.batches.read(*key)


def move(batch: Any, device: torch.device) -> Any:
    """The same structure with every tensor on a device."""
    if isinstance(batch, Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [move(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def _whole_tensors(dataset: Any) -> Tensor | list[Tensor] | None:
    if isinstance(dataset, Tensor):
        return dataset
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[0] if len(dataset.tensors) == 1 else list(dataset.tensors)
    if isinstance(dataset, list | tuple) and dataset and all(isinstance(part, Tensor) for part in dataset):
        return list(dataset)
    return None


def leaves(batch: Any) -> Iterator[Any]:
    """What a nested batch holds, one after the other."""
    if isinstance(batch, dict):
        for key in sorted(batch, key=str):
            yield from leaves(batch[key])
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from leaves(value)
    else:
        yield batch


def _sample(tensor: Tensor) -> Tensor:
    stride = max(1, -(-tensor.nbytes // _FINGERPRINT_BYTES))
    return tensor[::stride]


def _digest_tensor(digest: Any, leaf: Any) -> None:
    if isinstance(leaf, Tensor):
        digest.update(f"{tuple(leaf.shape)} {leaf.dtype}".encode())
        digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    else:
        digest.update(repr(leaf).encode())
