"""A set of images behind one face, whatever it came from."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dracones.images.budget import BUDGET
from dracones.images.dataset import Batch, Block, ImageDataset, cached
from dracones.images.digests import digests_of
from dracones.images.limits import Skipped, UnreadableImage
from dracones.images.listing import ImageListing
from dracones.images.parts import random_parts
from dracones.images.pixels import as_float, levels_of
from dracones.images.prefetch import in_order
from dracones.images.preprocess import Preprocess
from dracones.images.sources import ImageSource


class ImageCollection(ImageListing):
    """An ordered set of images: float32 `[C, H, W]` in [0, 1] on demand, the unreadable set aside with its reason.

    Made by `open_images`. Without a `preprocess`, `read` gives an image as it is; `batches` and `to_dataset` then infer
    one, which refuses images of different sizes. Files are decoded when asked for and not kept.

    Example:
        >>> from dracones.images import open_images
        >>> images = open_images(torch.zeros(5, 1, 8, 8))
        >>> [tuple(batch.images.shape) for batch in images.batches(3)]
        [(3, 1, 8, 8), (2, 1, 8, 8)]
        >>> len(images.subset([0, 4])), images.skipped
        (2, [])
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        preprocess: Preprocess | None = None,
        strict: bool = False,
        skipped: Sequence[Skipped] = (),
    ) -> None:
        super().__init__(source, strict=strict, skipped=skipped)
        self._preprocess = preprocess

    def __repr__(self) -> str:
        what = "as they are" if self._preprocess is None else repr(self._preprocess)
        return f"ImageCollection({self.name_of_source!r}, {len(self)} images, {what})"

    @property
    def preprocess(self) -> Preprocess | None:
        """What is done to every image; None: images are read as they are."""
        return self._preprocess

    def read(self, index: int) -> Tensor:
        """Image `[C, H, W]`, float32 in [0, 1].

        Raises:
            UnreadableImage: it cannot be decoded, or does not fit the `preprocess`.
        """
        return self._treated(self._at(index), self._preprocess)

    def read_native(self, index: int) -> Tensor:
        """Image `[C, H, W]` as stored (uint8, uint16 or float32), untreated: a quarter of the memory for large images.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        return torch.from_numpy(np.ascontiguousarray(self.source.read(self._at(index)).transpose(2, 0, 1)))

    def mask(self, index: int) -> Tensor | None:
        """`[H, W]` bool, True where anomalous, treated like its image; None where no masks are known.

        Raises:
            ValueError: the mask is missing, unreadable, or of another size than its image.
        """
        mask = self.source.mask(self._at(index)) if self._looks_at_masks else None
        if mask is None:
            return None
        tensor = torch.from_numpy(np.ascontiguousarray(mask))
        return tensor if self._preprocess is None else self._preprocess.mask(tensor)

    def batches(self, batch_size: int, *, workers: int = 0) -> Iterator[Batch]:
        """All readable images in order, `[B, C, H, W]`; `workers` threads read ahead, two batches at most.

        Raises:
            UnreadableImage: at the first unreadable image, where the collection is strict.
            ValueError: no image at all can be read; sizes differ and none is named.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least 1 is expected")
        if workers < 0:
            raise ValueError(f"workers={workers}: 0 (none) or more is expected")
        return self._batches(batch_size, workers, self.inferred_preprocess())

    def _batches(self, batch_size: int, workers: int, preprocess: Preprocess) -> Iterator[Batch]:
        chunks = (np.arange(start, min(start + batch_size, len(self))) for start in range(0, len(self), batch_size))
        if len(self) and self.source.block(self._indices[:1]) is not None:
            for chunk in chunks:
                yield Batch(self._block(chunk, preprocess), chunk, [self.name(int(i)) for i in chunk])
            return

        def attempt(index: int) -> Tensor | UnreadableImage:
            try:
                return self._treated(int(self._indices[index]), preprocess)
            except UnreadableImage as error:
                return error

        images: list[Tensor] = []
        indices: list[int] = []
        served = 0
        for index, result in enumerate(in_order(attempt, range(len(self)), workers, ahead=2 * batch_size)):
            if isinstance(result, UnreadableImage):
                self.skip(result)
            else:
                self._same_shape(images, indices, result, index)
                images.append(result)
                indices.append(index)
            if len(images) == batch_size or (images and index + 1 == len(self)):
                yield Batch(torch.stack(images), np.array(indices), [self.name(i) for i in indices])
                served += len(images)
                images, indices = [], []
        self.refuse_unread(served)

    def read_block(self, places: range) -> Block:
        """The images at these places as one batch, whatever lies around them: a stream can begin anew at any block.

        What cannot be read is handed over and not recorded in `skipped`. Any thread may call.

        Raises:
            UnreadableImage: at the first unreadable image, where the collection is strict.
        """
        preprocess = self.inferred_preprocess()
        chunk = np.arange(places.start, places.stop)
        if len(chunk) and self.source.block(self._indices[chunk[:1]]) is not None:
            return Block(Batch(self._block(chunk, preprocess), chunk, [self.name(i) for i in places]), [])
        images: list[Tensor] = []
        indices: list[int] = []
        unread: list[tuple[int, UnreadableImage]] = []
        for index in places:
            try:
                image = self._treated(int(self._indices[index]), preprocess)
            except UnreadableImage as error:
                if self.strict:
                    raise
                unread.append((index, error))
                continue
            self._same_shape(images, indices, image, index)
            images.append(image)
            indices.append(index)
        if not images:
            return Block(None, unread)
        return Block(Batch(torch.stack(images), np.array(indices), [self.name(i) for i in indices]), unread)

    def to_dataset(
        self, *, memory_limit: int = 2**31, workers: int = 0, progress: Callable[[int], None] | None = None
    ) -> ImageDataset:
        """A map-style torch Dataset of the readable images, decoded once and kept if `memory_limit` bytes suffice.

        All images are read here, so that what cannot be read is known (and skipped) before training begins.
        `progress` is called with the number of images of each step.
        """
        return cached(self.with_preprocess(self.inferred_preprocess()), memory_limit, workers, progress)

    def to_tensor(self) -> Tensor:
        """All readable images at once, `[N, C, H, W]`: for small sets."""
        return torch.cat([batch.images for batch in self.batches(512)])

    def split(self, shares: Mapping[str, float] | Sequence[float], seed: int = 0) -> dict[str, Self] | list[Self]:
        """Disjoint random parts, the same for the same seed; a mapping gives parts by name, a sequence parts in order.

        Raises:
            ValueError: shares are not positive, sum to more than 1, or leave a part without an image.

        Example:
            >>> from dracones.images import open_images
            >>> parts = open_images(torch.zeros(10, 1, 8, 8)).split({"fit": 0.8, "held_back": 0.2}, seed=0)
            >>> {name: len(part) for name, part in parts.items()}
            {'fit': 8, 'held_back': 2}
        """
        names = list(shares) if isinstance(shares, Mapping) else list(range(len(shares)))
        values = [float(shares[name]) for name in names]  # type: ignore[index]
        parts = [self.subset(part) for part in random_parts(len(self), values, seed)]
        return dict(zip(names, parts, strict=True)) if isinstance(shares, Mapping) else parts  # type: ignore[arg-type]

    def with_preprocess(self, preprocess: Preprocess | None) -> Self:
        """The same images, treated another way."""
        view = self._view()
        view._preprocess = preprocess
        return view

    def inferred_preprocess(self) -> Preprocess:
        """`preprocess`, or where there is none the one inferred from the images."""
        return self._preprocess or Preprocess.infer(self)

    def sample_shapes(self, count: int) -> dict[str, tuple[int, int, int]]:
        """Name to native `(C, H, W)` of up to `count` readable images, spread evenly."""
        places: np.ndarray | list[int] = (
            np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)) if len(self) else []
        )
        found = {}
        for place in places:
            try:
                found[self.name(int(place))] = self.native_shape(int(place))
            except UnreadableImage as error:
                self.skip(error)
        # A folder may begin with a run of broken files: look on until there is something to infer from.
        for index in range(len(self)) if not found else ():
            try:
                return {self.name(index): self.native_shape(index)}
            except UnreadableImage as error:
                self.skip(error)
        return found

    def digests(self, *, workers: int = 0, progress: Callable[[int], None] | None = None) -> list[bytes]:
        """A hash of each image's content, before any treatment: equal for equal files, whatever they are called.

        Files are read again each time: what changed on disk shows. What cannot be read has the hash `UNREADABLE`.
        """
        found = []
        for digest in digests_of(self.source.digest, self._indices.tolist(), workers, self.skip):
            found.append(digest)
            if progress is not None:
                progress(1)
        return found

    def fingerprint(
        self,
        *,
        workers: int = 0,
        progress: Callable[[int], None] | None = None,
        digests: Sequence[bytes] | None = None,
    ) -> str:
        """A hash of all images' content and order, before any treatment; names and places do not count.

        `digests`, where they are known already, save the reading.
        """
        known = self.digests(workers=workers, progress=progress) if digests is None else digests
        return hashlib.blake2b(b"".join(known), digest_size=20).hexdigest()

    def _treated(self, place: int, preprocess: Preprocess | None) -> Tensor:
        with BUDGET.holding():
            return self._read_and_treat(place, preprocess)

    def _read_and_treat(self, place: int, preprocess: Preprocess | None) -> Tensor:
        array = self.source.read(place)
        native = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
        if preprocess is None:
            return as_float(native)
        try:
            return preprocess(as_float(native), levels_of(native))
        except ValueError as error:
            raise UnreadableImage(self.source.item_name(place), str(error)) from error

    def _block(self, chunk: np.ndarray, preprocess: Preprocess) -> Tensor:
        native = self.source.block(self._indices[chunk])
        if native is None:
            raise TypeError(
                f"{type(self.source).__name__}.block gave the first image and none of {len(chunk)} others; "
                "it must give any images at once, or None for all"
            )
        return preprocess(as_float(native), levels_of(native))

    def _same_shape(self, images: list[Tensor], indices: list[int], image: Tensor, index: int) -> None:
        if images and images[0].shape != image.shape:
            raise ValueError(
                f"{self.name(indices[0])} is {tuple(images[0].shape)} and {self.name(index)} is {tuple(image.shape)} "
                "[C, H, W]; images of one batch need one size and depth: name size and channels in Preprocess"
            )
