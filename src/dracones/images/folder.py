"""Images in a folder, in single files, or in a list of files."""

import os
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
from typing_extensions import override

from dracones.images.digests import digest_of_bytes
from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.name_list import NameList, PathsBelow
from dracones.images.names import shown
from dracones.images.reading import SUFFIXES, decode, page_count, read_bytes, shape_of
from dracones.images.sources import ImageSource

Pages = Literal["first", "all"]
_COMPARED = 100_000
_PAGED = (".gif", ".tif", ".tiff", ".webp", ".png")

HEAT_SUFFIX = ".heat.png"
"""What pictures of heat maps end in: they are never read as images, wherever they lie."""

# Left behind by operating systems and tools; nobody means them as images, so nobody wants to read about them.
_JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "lost+found"))


class FilesSource(ImageSource):
    """Image files by path, named relative to `root`; read one at a time, when asked for.

    A million files take about 40 MB: names are kept as bytes, and paths and groups are made of them when asked for.
    """

    def __init__(self, paths: Sequence[Path], root: Path, name: str, limits: Limits, *, pages: Pages = "first") -> None:
        self.paths = paths
        self.root = root
        self.name = shown(name)
        self.limits = limits
        self._names = paths.names if isinstance(paths, PathsBelow) else NameList(_relative(paths, root))
        self._pages: list[int] | None = None
        self._several: dict[str, int] = {}
        if pages == "all":
            self._take_every_page()
        self.groups = _Groups(self._names)
        self.labels, self.classes = _labels_of(self.groups)

    def __len__(self) -> int:
        return len(self.paths)

    @override
    def item_name(self, index: int) -> str:
        return shown(self._names[index])

    @override
    def names_digest(self) -> str:
        return self._names.digest()

    def _page(self, index: int) -> int:
        return 0 if self._pages is None else self._pages[index]

    def _bytes(self, index: int) -> bytes:
        return read_bytes(self.paths[index], self.item_name(index), self.limits)

    def _take_every_page(self) -> None:
        """One image a page, named ``scan.tif#2``; files of one page keep their name."""
        paths: list[Path] = []
        names: list[str] = []
        pages: list[int] = []
        for path, name in zip(self.paths, self._names, strict=True):
            count = self._count(path, shown(name))
            paths += [path] * count
            names += [name] if count == 1 else [f"{name}#{page + 1}" for page in range(count)]
            pages += range(count)
        self.paths, self._names, self._pages = paths, NameList(names), pages

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
        if self._pages is None and self.paths[index].suffix.lower() in _PAGED:
            count = page_count(data, name, self.limits)
            if count > 1:
                self._several[name] = count
        return decode(data, name, self.limits, self._page(index))

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
        if self._page(index):
            height, width, channels = self.read(index).shape
            return channels, height, width
        return shape_of(self._bytes(index), self.item_name(index), self.limits)

    @override
    def digest(self, index: int) -> bytes:
        page = self._page(index)
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
    images, skipped = images_below(root)
    return list(images), skipped


def images_below(root: Path) -> tuple[PathsBelow, list[Skipped]]:
    """As `find_images`, for folders of any number of files."""
    skipped: list[Skipped] = []

    def walked() -> Iterator[str]:
        for name in _walk(root, "", set(), skipped):
            last, suffix = name.rpartition("/")[2], Path(name).suffix
            if last.lower().endswith(HEAT_SUFFIX):
                why = "a heat map that dracones wrote, and no image to learn from"
            elif suffix.lower() in SUFFIXES:
                yield name
                continue
            else:
                what = f"'{shown(suffix)}' files are" if suffix else "a file without a suffix is"
                why = f"{what} not read as images"
            skipped.append(Skipped(shown(name), why, is_image=False))

    return PathsBelow(root, NameList(walked())), skipped


def warn_of_pairs(images: Sequence[Path], root: Path) -> None:
    """Image and mask side by side would count as two images; sets too large for masks drawn by hand are not asked."""
    if len(images) > _COMPARED:
        return
    stems = Counter(path.with_suffix("").as_posix().removesuffix("_mask") for path in images)
    if stems and set(stems.values()) == {2}:
        first, second = (shown(path.relative_to(root).as_posix()) for path in images[:2])
        warnings.warn(
            f"every name in {shown(str(root))} occurs twice, such as {first} and {second}: if one is a mask, both "
            "are read as images; put masks in a folder of their own (masks=...)",
            UserWarning,
            stacklevel=3,
        )


def natural_key(text: str) -> str:
    """A sorting key in which numbers count as numbers and case comes last.

    Example:
        >>> sorted(["b10.png", "b9.png", "B2.png"], key=natural_key)
        ['B2.png', 'b9.png', 'b10.png']
    """
    # One text instead of a list: keys of a million names are alive together. Text and numbers take turns; a text ends
    # with the lowest character, a number begins with how many digits it has.
    parts = re.split(r"([0-9]+)", text)
    parts[1::2] = [chr(1 + len(digits)) + digits for digits in (part.lstrip("0") for part in parts[1::2])]
    parts[0::2] = [part.casefold() + "\0" for part in parts[0::2]]
    return "".join(parts) + "\0" + text


def _walk(root: Path, inside: str, seen: set[tuple[int, int]], skipped: list[Skipped]) -> Iterator[str]:
    """Names of files, relative to `root` with forward slashes, of the folder `inside` it ('' or ending in a slash)."""
    folder, what = root / inside, shown(inside.rstrip("/")) or "."
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            skipped.append(Skipped(what, "leads to a folder that was read already", is_image=False))
            return
        seen.add((status.st_dev, status.st_ino))
        names, folders, strange = _listed(folder)
    except OSError as error:
        skipped.append(Skipped(what, f"the folder cannot be listed: {error.strerror or error}"))
        return
    for name in names:
        if name in folders:
            yield from _walk(root, f"{inside}{name}/", seen, skipped)
        elif name in strange:
            skipped.append(Skipped(shown(inside + name), "no regular file, or a link to nowhere"))
        else:
            yield inside + name


def _listed(folder: Path) -> tuple[list[str], set[str], set[str]]:
    """What may be meant in natural order; which of it are folders, and which neither folders nor files."""
    names: list[str] = []
    folders: set[str] = set()
    strange: set[str] = set()
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                continue
            names.append(entry.name)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                is_folder, is_file = False, False
            if is_folder:
                folders.add(entry.name)
            elif not is_file:
                strange.add(entry.name)
    names.sort(key=natural_key)
    return names, folders, strange


def _relative(paths: Sequence[Path], root: Path) -> Iterator[str]:
    """Paths relative to `root` with forward slashes, cut as text: pathlib takes longer than decoding a small image."""
    base = str(root).rstrip(os.sep) + os.sep
    for path in paths:
        text = str(path)
        name = text[len(base) :] if text.startswith(base) else str(path.relative_to(root))
        yield name if os.sep == "/" else name.replace(os.sep, "/")


class _Groups(Sequence[str]):
    """The first folder of each name, '' for none; made when asked for."""

    def __init__(self, names: NameList) -> None:
        self._names = names

    @override
    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    @override
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        top, _, rest = self._names[index].partition("/")
        return shown(top) if rest else ""


def _labels_of(groups: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Classes are the folders directly in the root, where every image lies in one of at least two."""
    found: dict[str, int] = {}
    codes = array("q")
    for group in groups:
        if not group:
            return None, None
        codes.append(found.setdefault(group, len(found)))
    if len(found) < 2:
        return None, None
    classes = tuple(sorted(found, key=natural_key))
    place = np.array([classes.index(group) for group in found], dtype=np.int64)
    return place[np.frombuffer(codes, dtype=np.int64)], classes
