"""From a path, or a path with a part behind a colon, to the images there."""

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from glob import glob, has_magic
from pathlib import Path

from dracones.images.folder import FilesSource, images_below, natural_key, warn_of_pairs
from dracones.images.formats.arrays import Layout, npy_source, npz_source
from dracones.images.formats.cifar import cifar_source, cifar_splits
from dracones.images.formats.idx import idx_source, idx_splits, is_idx
from dracones.images.formats.layouts import Found, categories_in, layout_of
from dracones.images.formats.mvtec import mvtec_place, mvtec_source
from dracones.images.formats.parquet import ParquetSource
from dracones.images.formats.svhn import svhn_source, svhn_splits
from dracones.images.formats.table import TABLES, is_table, table_source
from dracones.images.formats.tar import TarSource
from dracones.images.joined import JoinedSource
from dracones.images.limits import Limits, Skipped
from dracones.images.reading import SUFFIXES
from dracones.images.sources import ImageSource

KINDS = ("builtin", "synthetic", "scenes")
"""Of images that need no file."""
_ARRAY_FILES = (".npz", ".npy", ".mat")
SHARDS = (".tar", ".parquet")
"""Files that hold many encoded images and are read at their place."""
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")


def path_source(spec: str, limits: Limits, layout: Layout | None) -> Found:
    """The images that a text names, and what was passed over while looking.

    Raises:
        FileNotFoundError: no such path; the nearest names are given.
        ValueError: no images there, or no such part; what there is is listed.
    """
    if spec.partition(":")[0] in KINDS and not Path(spec).exists():
        from dracones.images.specs import named_source  # draws by torch

        return named_source(spec), []
    path, part = _path_and_part(spec)
    if path is None:
        if not has_magic(spec):
            raise _no_such_path(spec)
        matches = [Path(found) for found in glob(str(Path(spec).expanduser()), recursive=True)]  # noqa: PTH207
        shards = shards_of(spec)
        if shards:
            return _joined(shards, spec, limits)
        files = [found for found in matches if found.is_file() and found.suffix.lower() in SUFFIXES]
        if not files:
            raise ValueError(f"no image files match {spec}")
        return listed_source(sorted(files, key=lambda file: natural_key(file.as_posix())), limits, spec), []
    if path.is_dir():
        return _folder(path, part, limits)
    if is_table(path):
        return table_source(path, part, limits)
    if path.suffix.lower() in SHARDS:
        return _shard(path, part, limits)
    return _file(path, part, limits, layout), []


def listed_source(paths: Sequence[Path], limits: Limits, name: str | None = None) -> ImageSource:
    """Image files as listed, named relative to the folder that holds them all."""
    for path in paths:
        if not path.exists():
            raise _no_such_path(str(path))
        if path.is_dir():
            raise ValueError(f"{path} is a folder; a list of images holds files only")
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (links stay as they are)
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    return FilesSource(absolute, root, name or f"{len(paths)} files in {root}", limits)


def shards_of(spec: str) -> list[Path]:
    """The tar and Parquet files that a text names: itself, those of a pattern, or of a folder without images."""
    path = Path(spec).expanduser()
    if path.is_dir():
        shards = shards_below(path)
        return shards if shards and not len(images_below(path)[0]) else []
    if path.exists():
        return [path] if path.suffix.lower() in SHARDS else []
    matches = [Path(found) for found in glob(str(path), recursive=True)] if has_magic(spec) else []  # noqa: PTH207
    shards = [found for found in matches if found.is_file() and found.suffix.lower() in SHARDS]
    return sorted(shards, key=lambda file: natural_key(file.as_posix()))


def shards_below(folder: Path) -> list[Path]:
    """Tar and Parquet files in a folder and below, in natural order."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SHARDS and path.is_file()]
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def _shard(path: Path, part: str | None, limits: Limits) -> Found:
    if path.suffix.lower() == ".parquet":
        return ParquetSource(path, part, limits), []
    if part is not None:
        raise ValueError(f"{path} is a file without parts; ':{part}' names nothing in it")
    source = TarSource(path, limits)
    if len(source) == 0 and not source.damage:
        raise ValueError(f"no images in {path} ({'; '.join(source.notes()) or 'it is empty'})")
    return source, source.damage


def _joined(paths: Sequence[Path], name: str, limits: Limits) -> Found:
    opened = [_shard(path, None, limits) for path in paths]
    return JoinedSource([source for source, _ in opened], name), [item for _, damage in opened for item in damage]


def _path_and_part(spec: str) -> tuple[Path | None, str | None]:
    """The path, and what follows its last colon where the whole is no path; (None, None) where nothing exists."""
    whole = Path(spec).expanduser()
    if whole.exists():
        return whole, None
    before, _, part = spec.rpartition(":")
    if before and Path(before).expanduser().exists():
        return Path(before).expanduser(), part
    return None, None


def _file(path: Path, part: str | None, limits: Limits, layout: Layout | None) -> ImageSource:
    if path.suffix == ".npz":
        return npz_source(path, part, limits, layout)
    if part is not None:
        raise ValueError(f"{path} is a file without parts; ':{part}' names nothing in it")
    if path.suffix == ".npy":
        return npy_source(path, layout)
    if path.suffix == ".mat":
        return svhn_source(path, path.name, limits)
    if is_idx(path):
        return idx_source(path, path.name, limits)
    if path.suffix.lower() in SUFFIXES:
        return FilesSource([path], path.parent, path.name, limits)
    if path.suffix.lower() in _PACKED:
        raise ValueError(f"{path} is packed; unpack it first and name the folder")
    raise ValueError(
        f"{path} is not read as images: expected a folder, an image ({', '.join(sorted(SUFFIXES))}), "
        f"an array ({', '.join(_ARRAY_FILES)}), a shard ({', '.join(SHARDS)}), a table of paths "
        f"({', '.join(TABLES)}) or an idx file"
    )


def _folder(path: Path, part: str | None, limits: Limits) -> Found:
    parts = _parts(path, limits)
    if parts:
        return _chosen(path, parts, part)()
    if part is not None:
        raise ValueError(f"{path} has no parts, so ':{part}' names nothing; a folder inside it is named {path}/{part}")
    place = mvtec_place(path)
    if place is not None:
        return mvtec_source(*place, limits)
    categories = categories_in(path)
    if categories:
        raise ValueError(
            f"{path} holds categories, with masks among their images; name one and its part: "
            f"{', '.join(f'{path / name}:train' for name in categories[:8])}"
        )
    images, skipped = images_below(path)
    if not images:
        shards = shards_below(path)
        if shards:
            return _joined(shards, path.name or str(path), limits)
        raise ValueError(_no_images(path, skipped, limits))
    warn_of_pairs(images, path)
    return FilesSource(images, path, path.name or str(path), limits), skipped


def _parts(path: Path, limits: Limits) -> dict[str, Callable[[], Found]]:
    """Name of a part -> how to open it, for a folder that is a data set with parts; empty for all others."""

    def alone(opened: Callable[..., ImageSource], files: object, name: str) -> Found:
        return opened(files, f"{path.name}:{name}", limits), []

    for place in (path, path / "raw"):
        splits = idx_splits(place) if place.is_dir() else {}
        if splits:
            return {name: partial(alone, idx_source, file, name) for name, file in splits.items()}
    cifar = cifar_splits(path)
    if cifar:
        return {name: partial(alone, cifar_source, files, name) for name, files in cifar.items()}
    svhn = svhn_splits(path)
    if svhn:
        return {name: partial(alone, svhn_source, file, name) for name, file in svhn.items()}
    layout = layout_of(path)
    return {} if layout is None else {name: partial(layout.source, path, name, limits) for name in layout.parts(path)}


def _chosen(path: Path, parts: dict[str, Callable[[], Found]], part: str | None) -> Callable[[], Found]:
    if part is None and len(parts) == 1:
        return next(iter(parts.values()))
    if part is not None and part in parts:
        return parts[part]
    what = "has several parts" if part is None else f"has no part '{part}'"
    raise ValueError(f"{path} {what}; name one: {', '.join(f'{path}:{name}' for name in parts)}")


def _no_images(path: Path, skipped: Sequence[Skipped], limits: Limits) -> str:
    try:
        children = sorted(path.iterdir())
    except OSError as error:
        return f"{path} cannot be listed: {error.strerror or error}"
    openable = [f"{child}:{name}" for child in children if child.is_dir() for name in _parts(child, limits)]
    openable += [
        str(child) for child in children if child.suffix in _ARRAY_FILES or (child.is_file() and is_idx(child))
    ]
    if openable:
        return f"{path} holds no image files, but sets; name one: {', '.join(openable[:8])}"
    found = f"{len(skipped)} other files, e.g. {skipped[0].name}" if skipped else "it is empty"
    return f"no images in {path} ({found}); expected {', '.join(sorted(SUFFIXES))}"


def _no_such_path(spec: str) -> FileNotFoundError:
    path = Path(spec).expanduser()
    while not path.parent.exists() and path.parent != path.parent.parent:
        path = path.parent
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    near = get_close_matches(path.name.partition(":")[0], names, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
        if near
        else f"{_listed(path.parent, names)}; give a folder or file of images, or a set that needs none "
        "(builtin:gravel, synthetic:uniform, scenes:gravel)"
    )
    return FileNotFoundError(f"no such file or folder: {spec}; {hint}")


def _listed(folder: Path, names: Sequence[str], shown: int = 5) -> str:
    """What a folder holds, in a clause."""
    where = "the working folder" if folder == Path() else str(folder)
    visible = sorted(name for name in names if not name.startswith("."))
    if not visible:
        return f"{where} is empty" if folder.is_dir() else f"there is no {where}"
    return f"{where} holds {', '.join(visible[:shown])}{', ...' if len(visible) > shown else ''}"
