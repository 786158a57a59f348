"""Features of a frozen backbone, computed once and kept on disk until the budget needs the room."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

__all__ = [
    "ComputedFeatures",
    "Extractor",
    "FeatureCache",
    "FeatureDataset",
    "Images",
    "StoredFeatures",
    "features_in_memory",
]

_FORMAT = 1
_ABANDONED_SECONDS = 24 * 3600


class Images(Protocol):
    """What the cache needs of a collection of images (`dracones.data.ImageCollection` has it)."""

    @property
    def preprocess(self) -> Any:
        """What is done to every image."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Hash of the images' content, in order."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches with ``.images`` `[B, C, H, W]`, in order."""

    def subset(self, indices: Any) -> "Images":
        """A view of some images."""


class Extractor(Protocol):
    """What the cache needs of a network: `FeatureExtractor` has it, and what is built on one."""

    name: str

    @property
    def mean(self) -> Tensor:
        """A tensor on the network's device."""

    def fingerprint(self) -> str:
        """Hash of everything the features depend on."""

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch."""


class FeatureDataset(Dataset[tuple[Tensor, ...]], ABC):
    """Items are tuples of feature maps `[C_l, h_l, w_l]`, float32; `batch` gives several stacked."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps `[B, C_l, h_l, w_l]` of the images at `indices`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name of the content: the same for the same weights, preprocessing and images."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(level[0] for level in self.batch(torch.tensor([index])))

    def chunks(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """All items in order, `size` at a time."""
        for indices in torch.arange(len(self)).split(size):
            yield self.batch(indices)


class StoredFeatures(FeatureDataset):
    """Feature maps read from memory-mapped files.

    `levels` are the raw arrays `[N, h_l, w_l, C_l]` (`[N, D]` for embeddings), channels last, for methods that want
    vectors in bulk.
    """

    def __init__(self, levels: Sequence[NDArray[Any]], key: str = "") -> None:
        self.levels = tuple(levels)
        self.key = key

    def __len__(self) -> int:
        return len(self.levels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps of the images at `indices`, widened to float32, channels-last in memory."""
        rows = indices.cpu().numpy()
        return tuple(_to_tensor(level[rows]) for level in self.levels)

    def fingerprint(self) -> str:
        """The cache's key."""
        return self.key


class ComputedFeatures(FeatureDataset):
    """The same items, computed anew at each access: what a cache gives when its budget cannot hold the features."""

    def __init__(self, extractor: Extractor, images: Images, key: str = "") -> None:
        self.extractor = extractor
        self.images = images
        self.key = key

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps of the images at `indices`, read and computed now."""
        (batch,) = self.images.subset(indices.cpu().numpy()).batches(len(indices))
        return tuple(level.cpu() for level in self.extractor(batch.images.to(self.extractor.mean.device)))

    def fingerprint(self) -> str:
        """The key that the cache would have used."""
        return self.key


class FeatureCache:
    """Memory-mapped features in half precision, one folder per (weights, preprocessing, images).

    The key is a hash of the extractor's `fingerprint`, the preprocessing and the images' content, so a change of any
    of the three computes anew and a second run, another method on the same backbone, or more epochs read. Entries are
    written under a temporary name and renamed into place: a killed or a second process can do no harm. The least
    recently used entries go when `budget_bytes` would be exceeded; features larger than that are not stored at all.

    Half precision keeps 11 bits of each feature (a relative error of 5e-4). Where a feature exceeds its range
    (65,504), that entry is kept in float32.

    Args:
        folder: where; by default ``$DRACONES_CACHE/features`` or ``~/.cache/dracones/features``.
        budget_bytes: disk that all entries together may take.
    """

    def __init__(self, folder: str | Path | None = None, *, budget_bytes: int = 8 * 1024**3) -> None:
        if budget_bytes < 0:
            raise ValueError(f"budget_bytes must not be negative; got {budget_bytes}")
        self.folder = Path(folder) if folder is not None else _default_folder()
        self.budget_bytes = budget_bytes

    def key(self, extractor: Extractor, images: Images) -> str:
        """Name of the entry: weights, preprocessing, content."""
        preprocess = images.preprocess
        described = preprocess.model_dump_json() if hasattr(preprocess, "model_dump_json") else repr(preprocess)
        parts = (str(_FORMAT), extractor.fingerprint(), described, images.fingerprint())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]

    def features(
        self, extractor: Extractor, images: Images, *, batch_size: int = 16, progress: Any = None
    ) -> FeatureDataset:
        """Features of `images`, read if stored, else computed and stored."""
        key = self.key(extractor, images)
        entry = self.folder / key
        stored = _open(entry) or self._compute(extractor, images, entry, batch_size, progress)
        return stored if stored is not None else ComputedFeatures(extractor, images, key)

    def used_bytes(self) -> int:
        """Disk that the entries take now."""
        return sum(_size(entry) for entry in self._entries())

    def clear(self) -> None:
        """Remove all entries."""
        for entry in self._entries():
            shutil.rmtree(entry, ignore_errors=True)

    def _entries(self) -> list[Path]:
        """Finished entries, least recently used first."""
        found = [path.parent for path in self.folder.glob("*/entry.json")]
        return sorted((path for path in found if not path.name.startswith(".")), key=_last_use)

    def _compute(
        self, extractor: Extractor, images: Images, entry: Path, batch_size: int, progress: Any
    ) -> StoredFeatures | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep_abandoned()
        for kind in (np.float16, np.float32):
            working = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
            try:
                if not self._write(extractor, images, working, np.dtype(kind), batch_size, progress):
                    return None
                with suppress(OSError):  # another process was first: its entry is as good
                    working.rename(entry)
                return _open(entry)
            except OverflowError:
                continue
            finally:
                shutil.rmtree(working, ignore_errors=True)
        raise ValueError(f"{extractor.name} gives features that are not finite; check the images and the weights")

    def _write(
        self,
        extractor: Extractor,
        images: Images,
        folder: Path,
        kind: np.dtype[Any],
        batch_size: int,
        progress: Any,
    ) -> bool:
        files: list[NDArray[Any]] = []
        count, done = len(images), 0
        if progress is not None:
            progress.start(count, f"features of {extractor.name}")
        try:
            for batch in images.batches(batch_size):
                levels = [_to_array(level) for level in extractor(batch.images.to(extractor.mean.device))]
                if not files:
                    if not self._make_room(sum(level[0].size for level in levels) * kind.itemsize * count):
                        return False
                    files = [
                        np.lib.format.open_memmap(
                            folder / f"level{i}.npy", mode="w+", dtype=kind, shape=(count, *level.shape[1:])
                        )
                        for i, level in enumerate(levels)
                    ]
                for file, level in zip(files, levels, strict=True):
                    _store(file[done : done + len(level)], level)
                done += len(levels[0])
                if progress is not None:
                    progress.advance(len(levels[0]))
        finally:
            if progress is not None:
                progress.finish()
        if not files:
            raise ValueError("no image could be read: there are no features to compute")
        for file in files:
            file.flush()  # type: ignore[attr-defined]
        # Unreadable images were left out by `batches`: only the first `done` rows were filled.
        (folder / "entry.json").write_text(json.dumps({"count": done, "levels": len(files)}))
        return True

    def _make_room(self, needed: int) -> bool:
        """Remove least recently used entries until `needed` bytes fit the budget; False where they never will."""
        if needed > self.budget_bytes:
            return False
        entries = self._entries()
        used = sum(_size(entry) for entry in entries)
        for entry in entries:
            if used + needed <= self.budget_bytes:
                break
            used -= _size(entry)
            shutil.rmtree(entry, ignore_errors=True)
        return True

    def _sweep_abandoned(self) -> None:
        for path in self.folder.glob(".writing-*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def features_in_memory(
    extractor: Extractor, images: Images, *, batch_size: int = 16, progress: Any = None
) -> StoredFeatures:
    """Features of `images`, computed now and held in memory in float32: what a run without a cache works on."""
    parts: list[list[NDArray[np.float32]]] = []
    if progress is not None:
        progress.start(len(images), f"features of {extractor.name}")
    for batch in images.batches(batch_size):
        parts.append([_to_array(level) for level in extractor(batch.images.to(extractor.mean.device))])
        if progress is not None:
            progress.advance(len(parts[-1][0]))
    if progress is not None:
        progress.finish()
    if not parts:
        raise ValueError("no image could be read: there are no features to compute")
    return StoredFeatures([np.concatenate(level) for level in zip(*parts, strict=True)], images.fingerprint())


def _default_folder() -> Path:
    root = os.environ.get("DRACONES_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "dracones") / "features"


def _open(entry: Path) -> StoredFeatures | None:
    """The entry, marked as used now; None where there is none or it cannot be read (it is then removed)."""
    try:
        facts = json.loads((entry / "entry.json").read_text())
        levels = [np.load(entry / f"level{i}.npy", mmap_mode="r")[: facts["count"]] for i in range(facts["levels"])]
        os.utime(entry / "entry.json")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return StoredFeatures(levels, entry.name)


def _last_use(entry: Path) -> float:
    with suppress(FileNotFoundError):
        return (entry / "entry.json").stat().st_mtime
    return 0.0


def _size(entry: Path) -> int:
    total = 0
    for path in entry.glob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _to_array(level: Tensor) -> NDArray[np.float32]:
    channels_last = level.permute(0, 2, 3, 1) if level.ndim == 4 else level
    return channels_last.detach().float().contiguous().cpu().numpy()


def _store(target: NDArray[Any], level: NDArray[np.float32]) -> None:
    if not np.isfinite(level).all() or np.abs(level).max() > np.finfo(target.dtype).max:
        raise OverflowError
    target[:] = level


def _to_tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
