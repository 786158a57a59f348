"""Rows that outlive the process that writes them: one JSON line each, below a line that says what they belong to."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Journal:
    """A file that only grows; after a kill at any moment its whole lines count, and a torn last one is cut off.

    Args:
        path: the file.
        facts: what the rows belong to (model, list of images); the first line. A journal with other facts is refused.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows"
        >>> with Journal.begin(path, {"model": "a"}) as journal:
        ...     journal.append([{"score": 1.5}, {"score": 2.5}])
        >>> with Journal.resume(path, {"model": "a"}) as journal:
        ...     journal.count, list(journal.rows())
        (2, [{'score': 1.5}, {'score': 2.5}])
    """

    def __init__(self, path: Path, descriptor: int, count: int, size: int) -> None:
        self.path = path
        self.count = count
        self._descriptor = descriptor
        self._size = size

    @classmethod
    def begin(cls, path: Path, facts: Mapping[str, Any]) -> Self:
        """A new journal; one that was there is gone.

        Raises:
            OSError: the disk refuses.
        """
        journal = cls(path, _opened(path), 0, 0)
        os.ftruncate(journal._descriptor, 0)
        journal._write(_line(facts))
        return journal

    @classmethod
    def resume(cls, path: Path, facts: Mapping[str, Any]) -> Self:
        """The journal that a killed run left, its torn end cut off; a new one where there is none.

        Raises:
            ValueError: it belongs to something else; says what differs.
            OSError: the disk refuses.
        """
        if not path.exists():
            return cls.begin(path, facts)
        header, count, size = _whole_lines(path)
        if header is None:
            return cls.begin(path, facts)
        changed = [name for name in {**header, **facts} if header.get(name) != facts.get(name)]
        if changed:
            listed = "; ".join(f"{name} was {header.get(name)!r} and is {facts.get(name)!r}" for name in changed)
            raise ValueError(f"{path} holds the rows of another run: {listed}; begin anew instead of resuming it")
        journal = cls(path, _opened(path), count, size)
        os.ftruncate(journal._descriptor, size)
        return journal

    def keep(self, count: int) -> None:
        """Forget all rows but the first ``count``."""
        if count >= self.count:
            return
        with self.path.open("rb") as file:
            for _ in range(count + 1):
                file.readline()
            self._size = file.tell()
        os.ftruncate(self._descriptor, self._size)
        self.count = count

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, all or none of them.

        Raises:
            OSError: the disk refuses; the rows of before are whole.
        """
        lines = [_line(row) for row in rows]
        self._write(b"".join(lines))
        self.count += len(lines)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, in order, one in memory at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for _ in range(self.count):
                yield self.row_of_line(file.readline())

    @staticmethod
    def row_of_line(line: bytes) -> dict[str, Any]:
        """A row as it was written."""
        row: dict[str, Any] = json.loads(line)
        return row

    def close(self) -> None:
        """Write no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close, and delete the file: its rows have found their place."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        try:
            done = os.lseek(self._descriptor, self._size, os.SEEK_SET) - self._size
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise OSError(
                f"could not write to {self.path} ({error.strerror or error}): its {self.count} rows are whole, and a "
                "run that is resumed goes on from them"
            ) from error
        self._size += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> int:
    """A descriptor that no other process has: rows of two runs in one journal would belong to neither."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OSError(f"another run is writing {path}; wait for it, or name another output") from None
    return descriptor


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _whole_lines(path: Path) -> tuple[dict[str, Any] | None, int, int]:
    """The header, how many rows follow it, and where the last whole line ends."""
    with path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return None, 0, 0
        try:
            header = json.loads(first)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise ValueError(f"{path} is not the journal of a killed run; move it away")
        count, size = 0, len(first)
        for line in file:
            # A machine that lost its power may leave the length of a line without its text.
            if not line.endswith(b"}\n") or b"\0" in line:
                break
            count, size = count + 1, size + len(line)
        return header, count, size
