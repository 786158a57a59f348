"""CIFAR-10 and CIFAR-100 as published: pickled batches, read without running anything that a pickle may hold.

Reference: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from dracones.images.formats.arrays import array_source
from dracones.images.limits import Limits
from dracones.images.sources import ArraySource

_SIDE = 32


def cifar_splits(folder: Path) -> dict[str, list[Path]]:
    """Split name (`train`, `test`) to batch files, of the CIFAR batches directly in `folder`."""
    if (folder / "meta").is_file():
        splits = {name: [folder / name] for name in ("train", "test")}
    else:
        batches = [path for path in sorted(folder.glob("data_batch_[0-9]*")) if not path.suffix]
        splits = {"train": batches, "test": [folder / "test_batch"]}
    return {name: files for name, files in splits.items() if files and all(file.is_file() for file in files)}


def cifar_source(files: list[Path], name: str, limits: Limits) -> ArraySource:
    """The images of some batch files, uint8 32x32 RGB, with their labels (the fine ones of CIFAR-100) and class names.

    Raises:
        ValueError: a file is no CIFAR batch, is damaged, or its pickle asks for more than arrays and plain values.
    """
    images, labels = [], []
    for path in files:
        batch = read_pickled_arrays(path, limits)
        if not isinstance(batch, dict):
            raise ValueError(f"{path} holds a {type(batch).__name__}; a CIFAR batch is a dictionary")
        data = batch.get("data")
        marks = batch.get("labels", batch.get("fine_labels"))
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or data.ndim != 2
            or data.shape[1] != 3 * _SIDE**2
        ):
            raise ValueError(
                f"{path} is no CIFAR batch: 'data' must be uint8 [N, {3 * _SIDE**2}]; keys {sorted(map(str, batch))}"
            )
        images.append(data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        labels.append(_labels(marks, len(data), path))
    return array_source(
        np.ascontiguousarray(np.concatenate(images)),
        name,
        layout="NHWC",
        labels=np.concatenate(labels),
        classes=_class_names(files[0].parent, limits),
    )


def read_pickled_arrays(path: Path, limits: Limits) -> Any:
    """What a pickle holds, if that is numbers, text, lists, dictionaries and NumPy arrays, and nothing else.

    Raises:
        ValueError: the pickle is damaged, too large, or names any class or function beyond those of plain arrays.
    """
    size = path.stat().st_size
    if size > limits.max_array_bytes:
        raise ValueError(
            f"{path} has {size:,} bytes, more than the {limits.max_array_bytes:,} of Limits(max_array_bytes=...)"
        )
    try:
        content = path.read_bytes()
        _check_memo(content)
        return _text_keys(_ArraysOnly(io.BytesIO(content), encoding="bytes").load())
    except _Forbidden as error:
        raise ValueError(f"{path}: {error}") from error
    # A damaged pickle can fail at any instruction, in any way; what it says is that the file is damaged.
    except Exception as error:
        raise ValueError(f"{path} is no pickle of arrays that can be read: {error or type(error).__name__}") from error


class _Forbidden(Exception):  # noqa: N818 (never leaves this file)
    pass


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can build plain arrays and knows no other name, so that no code in a file is ever run."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _EmptyArray()
        if (module, name) == ("numpy", "ndarray"):
            return _Kind()
        if (module, name) == ("numpy", "dtype"):
            return _PlainDtype()
        if (module, name) == ("_codecs", "encode"):
            return _Latin1()
        raise _Forbidden(f"its pickle asks for {module}.{name}, which is not a plain array or value; it was not run")

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden(f"its pickle refers to something outside the file ({pid!r}); it was not loaded")


def _check_memo(content: bytes) -> None:
    """Refuse a store number beyond the count of instructions: the unpickler sets aside memory for any that is named."""
    for count, (code, argument, _) in enumerate(pickletools.genops(content)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise _Forbidden(
                f"its pickle stores value {argument:,} after {count:,} instructions, as none that is written does"
            )


class _Kind:
    """Stands for `numpy.ndarray`. Like all that a pickle is handed here it has no attribute that BUILD could set."""

    __slots__ = ()


class _EmptyArray:
    """NumPy's own `_reconstruct` would set aside any memory the file names; arrays are pickled empty, then filled."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, *_: object) -> np.ndarray:
        if not isinstance(kind, _Kind) or shape != (0,):
            raise _Forbidden(f"its pickle builds an array of shape {shape!r} in a way that NumPy does not write")
        return np.ndarray((0,), dtype=np.int8)


class _PlainDtype:
    """Types of plain numbers."""

    __slots__ = ()

    def __call__(self, code: object, *_: object) -> np.dtype:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if text not in ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"):
            raise _Forbidden(f"its pickle holds an array of type {text!r}; only plain numbers are read")
        return np.dtype(text)


class _Latin1:
    """How Python 2 wrote bytes."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _Forbidden("its pickle encodes text in a way that Python does not write")
        return text.encode("latin1")


def _text_keys(value: Any) -> Any:
    """Dictionaries that Python 2 pickled have keys of bytes. The top level alone: below it the same dictionary may be
    shared many times, and copying it each time takes for ever.
    """
    if isinstance(value, dict):
        return {key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in value.items()}
    return value


def _labels(marks: object, count: int, path: Path) -> np.ndarray:
    """One whole number an image."""
    values = marks.tolist() if isinstance(marks, np.ndarray) and marks.ndim == 1 else marks
    if not isinstance(values, list) or len(values) != count or not all(type(value) is int for value in values):
        raise ValueError(
            f"{path} is no CIFAR batch: it needs one of 'labels' or 'fine_labels', a whole number for each of "
            f"{count} images"
        )
    return np.asarray(values, dtype=np.int64)


def _class_names(folder: Path, limits: Limits) -> list[str] | None:
    for file, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if (folder / file).is_file():
            meta = read_pickled_arrays(folder / file, limits)
            names = meta.get(key) if isinstance(meta, dict) else None
            if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
                return None
            return [name.decode("latin1") if isinstance(name, bytes) else name for name in names] or None
    return None
