"""Images in a folder, in single files, or in a list of files."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import override

from dracones.images.digests import digest_of_bytes
from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.names import shown
from dracones.images.reading import SUFFIXES, decode, page_count, read_bytes, shape_of
from dracones.images.sources import ImageSource

Pages = Literal["first", "all"]
_PAGED = (".gif", ".tif", ".tiff", ".webp", ".png")

HEAT_SUFFIX = ".heat.png"
"""What pictures of heat maps end in: they are never read as images, wherever they lie."""

# Left behind by operating systems and tools; nobody means them as images, so nobody wants to read about them.
_JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "lost+found"))


class FilesSource(ImageSource):
    """Image files by path, named relative to `root`; read one at a time, when asked for."""

    def __init__(self, paths: Sequence[Path], root: Path, name: str, limits: Limits, *, pages: Pages = "first") -> None:
        self.paths = list(paths)
        self.root = root
        self.name = shown(name)
        self.limits = limits
        self._names = _relative(self.paths, root)
        self._pages = [0] * len(self.paths)
        self._several: dict[str, int] = {}
        if pages == "all":
            self._take_every_page()
        self.groups = [top if rest else "" for top, _, rest in (n.partition("/") for n in self._names)]
        self.labels, self.classes = _labels_of(self.groups)

    def __len__(self) -> int:
        return len(self.paths)

    @override
    def item_name(self, index: int) -> str:
        return self._names[index]

    def _bytes(self, index: int) -> bytes:
        return read_bytes(self.paths[index], self.item_name(index), self.limits)

    def _take_every_page(self) -> None:
        """One image a page, named ``scan.tif#2``; files of one page keep their name."""
        paths: list[Path] = []
        names: list[str] = []
        pages: list[int] = []
        for path, name in zip(self.paths, self._names, strict=True):
            count = self._count(path, name)
            paths += [path] * count
            names += [name] if count == 1 else [f"{name}#{page + 1}" for page in range(count)]
            pages += range(count)
        self.paths, self._names, self._pages = paths, names, pages

    def _count(self, path: Path, name: str) -> int:
        if path.suffix.lower() not in _PAGED:
            return 1
        try:
            return page_count(read_bytes(path, name, self.limits), name, self.limits)
        except UnreadableImage:
            return 1

    @override
    def read(self, index: int) -> np.ndarray:
        data, name = self._bytes(index), self.item_name(index)
        if self._pages[index] == 0 and "#" not in name and self.paths[index].suffix.lower() in _PAGED:
            count = page_count(data, name, self.limits)
            if count > 1:
                self._several[name] = count
        return decode(data, name, self.limits, self._pages[index])

    @override
    def notes(self) -> list[str]:
        if not self._several:
            return []
        name, count = next(iter(self._several.items()))
        return [
            f"{len(self._several)} files have several pages or frames, such as {name} with {count}: the first was read "
            "(pages='all' reads each)"
        ]

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        if self._pages[index]:
            height, width, channels = self.read(index).shape
            return channels, height, width
        return shape_of(self._bytes(index), self.item_name(index), self.limits)

    @override
    def digest(self, index: int) -> bytes:
        page = self._pages[index]
        return digest_of_bytes(self._bytes(index) + (f"#{page}".encode() if page else b""))


def every_page(source: ImageSource) -> ImageSource:
    """The same files, every page of each an image of its own.

    Raises:
        TypeError: no files, or files with masks.
    """
    if type(source) is not FilesSource:
        raise TypeError(
            f"pages='all' is for image files; {source.name} holds none, or has masks that belong to one page"
        )
    return FilesSource(source.paths, source.root, source.name, source.limits, pages="all")


def find_images(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Image files below `root` in natural order (2 before 10), and what else lies there.

    Links to folders are followed, each folder once, so a loop of links ends. Hidden files and what operating systems
    leave behind are passed over in silence.
    """
    images: list[Path] = []
    skipped: list[Skipped] = []
    for entry in _walk(root, set(), skipped, root):
        name = shown(entry.relative_to(root).as_posix())
        if entry.name.lower().endswith(HEAT_SUFFIX):
            skipped.append(Skipped(name, "a heat map that dracones wrote, and no image to learn from", is_image=False))
        elif entry.suffix.lower() in SUFFIXES:
            images.append(entry)
        else:
            what = f"'{shown(entry.suffix)}' files are" if entry.suffix else "a file without a suffix is"
            skipped.append(Skipped(name, f"{what} not read as images", is_image=False))
    return images, skipped


def warn_of_pairs(images: Sequence[Path], root: Path) -> None:
    """Image and mask side by side would count as two images."""
    stems = Counter(path.with_suffix("").as_posix().removesuffix("_mask") for path in images)
    if stems and set(stems.values()) == {2}:
        first, second = (shown(path.relative_to(root).as_posix()) for path in images[:2])
        warnings.warn(
            f"every name in {shown(str(root))} occurs twice, such as {first} and {second}: if one is a mask, both "
            "are read as images; put masks in a folder of their own (masks=...)",
            UserWarning,
            stacklevel=3,
        )


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sorting key in which numbers count as numbers and case comes last.

    Example:
        >>> sorted(["b10.png", "b9.png", "B2.png"], key=natural_key)
        ['B2.png', 'b9.png', 'b10.png']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(1, int(part), "") if part.isdigit() else (0, 0, part.casefold()) for part in parts]
    return [*key, (0, 0, text)]


def _walk(folder: Path, seen: set[tuple[int, int]], skipped: list[Skipped], root: Path) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            name = shown(folder.relative_to(root).as_posix())
            skipped.append(Skipped(name, "leads to a folder that was read already", is_image=False))
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        skipped.append(
            Skipped(
                shown(folder.relative_to(root).as_posix()), f"the folder cannot be listed: {error.strerror or error}"
            )
        )
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _JUNK:
            continue
        path = folder / entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            is_folder, is_file = False, False
        if is_folder:
            yield from _walk(path, seen, skipped, root)
        elif is_file:
            yield path
        else:
            skipped.append(Skipped(shown(path.relative_to(root).as_posix()), "no regular file, or a link to nowhere"))


def _relative(paths: Sequence[Path], root: Path) -> list[str]:
    """Paths relative to `root` with forward slashes, cut as text: pathlib takes longer than decoding a small image."""
    base = str(root).rstrip(os.sep) + os.sep
    texts = [str(path) for path in paths]
    names = [
        text[len(base) :] if text.startswith(base) else str(path.relative_to(root))
        for text, path in zip(texts, paths, strict=True)
    ]
    return [shown(name if os.sep == "/" else name.replace(os.sep, "/")) for name in names]


def _labels_of(groups: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Classes are the folders directly in the root, where every image lies in one of at least two."""
    classes = tuple(sorted(set(groups), key=natural_key))
    if len(classes) < 2 or "" in classes:
        return None, None
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[group] for group in groups], dtype=np.int64), classes
