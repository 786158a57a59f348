"""Images in a column of a Parquet file: encoded bytes, a window of rows in memory at a time."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from dracones.images.limits import Limits, UnreadableImage
from dracones.images.names import shown
from dracones.images.sources import BytesSource

_IMAGE_COLUMNS = ("image", "img", "bytes", "content", "data")
_NAME_COLUMNS = ("path", "file_name", "filename", "name", "key", "__key__", "id")
_LABEL_COLUMNS = ("label", "labels", "class")
_WINDOW = 64
_WINDOWS = 8


class ParquetSource(BytesSource):
    """Rows of a Parquet file whose column holds encoded images: bytes, or Hugging Face's struct of `bytes` and `path`.

    Rows are named by a text column (`path`, `file_name`, ...) or the struct's `path`, where these are all different,
    else by their number. Reading goes forward through a group of rows; a jump back begins the group anew.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: no Parquet, no column of images, or a group of rows beyond `max_array_bytes`.
    """

    def __init__(self, path: Path, column: str | None, limits: Limits) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"reading {path} needs pyarrow: pip install 'dracones[parquet]'") from error
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of both kinds
            raise ValueError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error
        self.path, self.limits = path, limits
        self.name = shown(path.name if column is None else f"{path.name}:{column}")
        self._column, self._leaf = _image_column(path, self._file.schema_arrow, column)
        meta = self._file.metadata
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        largest = max((group.total_byte_size for group in groups), default=0)
        if largest > limits.max_array_bytes:
            raise ValueError(
                f"{path} has a group of rows of {largest:,} bytes, more than the {limits.max_array_bytes:,} of "
                "Limits(max_array_bytes=...); write it with smaller groups"
            )
        self._ends = np.cumsum([0, *(group.num_rows for group in groups)])
        self._windows: OrderedDict[tuple[int, int], list[Any] | str] = OrderedDict()
        self._ahead: tuple[int, int, Any] | None = None  # group, next window, batches
        self._lock = threading.Lock()
        self._names = self._texts()
        self.labels = self._whole_numbers()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @override
    def item_name(self, index: int) -> str:
        return f"{self.name}[{index}]" if self._names is None else shown(str(self._names[index]))

    def _texts(self) -> Any:
        """The column of names, in Arrow's own memory, where its texts are all there and all different."""
        import pyarrow.compute

        schema = self._file.schema_arrow
        candidates = [
            name for name in _NAME_COLUMNS if name in schema.names and str(schema.field(name).type) == "string"
        ]
        if self._leaf is not None and schema.field(self._column).type.get_field_index("path") >= 0:
            candidates.append(f"{self._column}.path")
        for name in candidates[:2]:
            try:
                table = self._file.read(columns=[name])
            except (OSError, ValueError):
                continue
            texts = table.column(0).combine_chunks()
            if "." in name:
                texts = pyarrow.compute.struct_field(texts, "path")
            if texts.null_count == 0 and len(pyarrow.compute.unique(texts)) == len(texts):
                return texts
        return None

    def _whole_numbers(self) -> np.ndarray | None:
        import pyarrow

        schema = self._file.schema_arrow
        for name in _LABEL_COLUMNS:
            if name in schema.names and pyarrow.types.is_integer(schema.field(name).type):
                try:
                    column = self._file.read(columns=[name]).column(0)
                except (OSError, ValueError):
                    return None
                return None if column.null_count else column.to_numpy().astype(np.int64)
        return None

    def _bytes(self, index: int) -> bytes:
        name = self.item_name(index)
        group = int(np.searchsorted(self._ends, index, side="right")) - 1
        number, place = divmod(index - int(self._ends[group]), _WINDOW)
        window = self._window(group, number)
        if isinstance(window, str):
            raise UnreadableImage(name, f"its rows of {self.name} cannot be read: {window}")
        data = window[place] if place < len(window) else None
        if not data:
            raise UnreadableImage(name, "the row holds no bytes")
        if len(data) > self.limits.max_file_bytes:
            raise UnreadableImage(
                name,
                f"the image has {len(data):,} bytes, more than the limit of {self.limits.max_file_bytes:,} "
                "(max_file_bytes)",
            )
        return bytes(data)

    def _window(self, group: int, number: int) -> list[Any] | str:
        """Some rows' bytes, or why there are none."""
        with self._lock:
            key = (group, number)
            if key not in self._windows:
                if self._ahead is None or self._ahead[0] != group or self._ahead[1] > number:
                    self._ahead = (group, 0, self._batches(group))
                while self._ahead[1] <= number:
                    self._read_window()
            return self._windows[key]

    def _batches(self, group: int) -> Any:
        column = self._column if self._leaf is None else f"{self._column}.{self._leaf}"
        return self._file.iter_batches(batch_size=_WINDOW, row_groups=[group], columns=[column], use_threads=False)

    def _read_window(self) -> None:
        if self._ahead is None:
            return
        group, number, batches = self._ahead
        found: list[Any] | str
        try:
            column = next(batches).column(0)
            found = (column if self._leaf is None else column.field(self._leaf)).to_pylist()
        except StopIteration:
            found = "the group of rows ends before its time"
        except (OSError, ValueError, MemoryError) as error:
            found = str(error).splitlines()[0]
        self._windows[group, number] = found
        while len(self._windows) > _WINDOWS:
            self._windows.popitem(last=False)
        self._ahead = (group, number + 1, batches)


def _image_column(path: Path, schema: Any, asked: str | None) -> tuple[str, str | None]:
    """The column of images, and the field of its bytes where it is a struct."""
    import pyarrow

    def leaf(name: str) -> str | None:
        kind = schema.field(name).type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            return ""
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return "bytes"
        return None

    usable = {name: found for name in schema.names if (found := leaf(name)) is not None}
    named = [asked] if asked is not None else [name for name in _IMAGE_COLUMNS if name in usable] or list(usable)
    if (
        len(named) == 0
        or named[0] not in usable
        or (asked is None and len(named) > 1 and named[0] not in _IMAGE_COLUMNS)
    ):
        there = ", ".join(usable) or "none"
        wanted = "no column is sure to hold images" if asked is None else f"column '{asked}' holds no encoded images"
        raise ValueError(f"{path}: {wanted}; columns of bytes: {there}; name one as {path.name}:COLUMN")
    return named[0], usable[named[0]] or None
