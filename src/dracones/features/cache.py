"""Features of a frozen backbone, computed once and kept on disk until the budget needs the room."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dracones.features.dataset import ComputedFeatures, Extractor, FeatureDataset, Images, StoredFeatures
from dracones.features.entry import DamagedEntry, EntryWriter, entries, open_entry, size_of
from dracones.files.writers import is_abandoned, writer

__all__ = ["FeatureCache", "features_in_memory"]

_FORMAT = 2
_AT_ONCE_ON_CPU, _AT_ONCE = 4, 32  # images computed together
_WRITING = ".writing-"


class FeatureCache:
    """Memory-mapped features in half precision, one folder per (weights, preprocessing, images).

    The key is a hash of the extractor's `fingerprint`, the preprocessing and the images' content, so a change of any
    of the three computes anew and a second run, another method on the same backbone, or more epochs read. Entries are
    written under a temporary name and renamed into place: a killed or a second process can do no harm. The first use
    in a process compares an entry with its checksums; what is damaged is computed anew, with a warning. The least
    recently used entries go when `budget_bytes` would be exceeded. Features larger than that, or than the disk has
    room for, are not stored but computed at each access, with a warning.

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

    def key(self, extractor: Extractor, images: Images, *, progress: Any = None) -> str:
        """Name of the entry: weights, preprocessing, content."""
        preprocess = images.preprocess
        described = preprocess.model_dump_json() if hasattr(preprocess, "model_dump_json") else repr(preprocess)
        with _watched(progress, len(images), "looking for stored features"):
            content = images.fingerprint(progress=None if progress is None else progress.advance)
        parts = (str(_FORMAT), extractor.fingerprint(), described, content)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]

    def features(
        self, extractor: Extractor, images: Images, *, batch_size: int | None = None, progress: Any = None
    ) -> FeatureDataset:
        """Features of `images`, read if stored, else computed and stored.

        Args:
            extractor: the network.
            images: what it is shown.
            batch_size: images computed together; by default few on a CPU, which is as fast and takes less memory.
            progress: told of every batch.
        """
        key = self.key(extractor, images, progress=progress)
        entry = self.folder / key
        stored = self._open(extractor, entry) or self._compute(extractor, images, entry, batch_size, progress)
        return stored if stored is not None else ComputedFeatures(extractor, images, key)

    def used_bytes(self) -> int:
        """Disk that the entries take now."""
        return sum(size_of(entry) for entry in entries(self.folder))

    def clear(self) -> None:
        """Remove all entries."""
        for entry in entries(self.folder):
            shutil.rmtree(entry, ignore_errors=True)

    def _open(self, extractor: Extractor, entry: Path) -> StoredFeatures | None:
        """The entry, if it is there and whole; what is damaged is removed, so that it is computed anew."""
        try:
            return open_entry(entry)
        except (DamagedEntry, OSError) as error:
            reason = str(error) if isinstance(error, DamagedEntry) else f"it cannot be read ({error.strerror or error})"
        shutil.rmtree(entry, ignore_errors=True)
        warnings.warn(
            f"stored features of {extractor.name} were damaged and are computed anew ({entry}: {reason})",
            RuntimeWarning,
            stacklevel=3,
        )
        return None

    def _compute(
        self, extractor: Extractor, images: Images, entry: Path, batch_size: int | None, progress: Any
    ) -> StoredFeatures | None:
        for kind in (np.float16, np.float32):
            try:
                with self._working() as working:
                    if not self._write(extractor, images, working, np.dtype(kind), batch_size, progress):
                        return None
                    try:
                        working.rename(entry)
                    except OSError:  # another process was first: its entry is as good
                        return self._open(extractor, entry)
                    return open_entry(entry, written_here=True)
            except OverflowError:
                continue
            except OSError as error:
                self._warn(extractor, f"the disk refused them ({error.strerror or error})")
                return None
        raise ValueError(f"{extractor.name} gives features that are not finite; check the images and the weights")

    @contextmanager
    def _working(self) -> Iterator[Path]:
        """A folder to write in, gone at the end unless it was renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep_abandoned()
        working = Path(tempfile.mkdtemp(prefix=_WRITING + writer(), dir=self.folder))
        try:
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)

    def _write(
        self,
        extractor: Extractor,
        images: Images,
        folder: Path,
        kind: np.dtype[Any],
        batch_size: int | None,
        progress: Any,
    ) -> bool:
        writer = None
        count = len(images)
        with ExitStack() as stack:
            stack.enter_context(_watched(progress, count, f"features of {extractor.name}"))
            for levels in _computed(extractor, images, batch_size, progress):
                if writer is None:
                    needed = sum(level[0].size for level in levels) * kind.itemsize * count
                    if not self._make_room(needed):
                        self._warn(
                            extractor,
                            f"they take {needed / 1024**3:.3g} GB, more than the {self.budget_bytes / 1024**3:.3g} "
                            "allowed (cache_gigabytes)",
                        )
                        return False
                    shapes = [level.shape[1:] for level in levels]
                    writer = stack.enter_context(EntryWriter(folder, shapes, kind, count))
                writer.write(levels)
            if writer is None:
                raise ValueError("no image could be read: there are no features to compute")
            writer.finish()
        return True

    def _warn(self, extractor: Extractor, why: str) -> None:
        warnings.warn(
            f"features of {extractor.name} are not kept in {self.folder}: {why}. They are computed anew each time they "
            "are needed, in every epoch",
            RuntimeWarning,
            stacklevel=2,
        )

    def _make_room(self, needed: int) -> bool:
        """Remove least recently used entries until `needed` bytes fit the budget; False where they never will."""
        if needed > self.budget_bytes:
            return False
        found = entries(self.folder)
        used = sum(size_of(entry) for entry in found)
        for entry in found:
            if used + needed <= self.budget_bytes:
                break
            used -= size_of(entry)
            shutil.rmtree(entry, ignore_errors=True)
        return True

    def _sweep_abandoned(self) -> None:
        """Remove what killed processes left: nobody writes to it, and no file in it changed lately."""
        for path in self.folder.glob(f"{_WRITING}*"):
            times = [path.stat().st_mtime]
            for file in path.glob("*"):
                with suppress(FileNotFoundError):
                    times.append(file.stat().st_mtime)
            if is_abandoned(path.name.removeprefix(_WRITING), max(times)):
                shutil.rmtree(path, ignore_errors=True)


def features_in_memory(
    extractor: Extractor, images: Images, *, batch_size: int | None = None, progress: Any = None
) -> StoredFeatures:
    """Features of `images`, computed now and held in memory in float32: what a run without a cache works on."""
    with _watched(progress, len(images), f"features of {extractor.name}"):
        parts = list(_computed(extractor, images, batch_size, progress))
    if not parts:
        raise ValueError("no image could be read: there are no features to compute")
    return StoredFeatures([np.concatenate(level) for level in zip(*parts, strict=True)], images.fingerprint())


def _computed(
    extractor: Extractor, images: Images, batch_size: int | None, progress: Any
) -> Iterator[list[NDArray[np.float32]]]:
    """Features of all readable images, batch by batch, channels last."""
    device = extractor.mean.device
    for batch in images.batches(batch_size or (_AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE)):
        levels = [_to_array(level) for level in extractor(batch.images.to(device))]
        yield levels
        if progress is not None:
            progress.advance(len(levels[0]))


@contextmanager
def _watched(progress: Any, total: int, what: str) -> Iterator[None]:
    if progress is None:
        yield
        return
    progress.start(total, what)
    try:
        yield
    finally:
        progress.finish()


def _default_folder() -> Path:
    root = os.environ.get("DRACONES_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "dracones") / "features"


def _to_array(level: Tensor) -> NDArray[np.float32]:
    channels_last = level.permute(0, 2, 3, 1) if level.ndim == 4 else level
    return channels_last.detach().float().contiguous().cpu().numpy()
