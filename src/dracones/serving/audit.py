"""What was said of which image: lines of JSON in a file that is rotated, written beside the scoring."""

import hashlib
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dracones.files.atomic import write_bytes
from dracones.serving.settings import Settings

if TYPE_CHECKING:
    from dracones.serving.measures import Measures

log = logging.getLogger("dracones.serving")
_WAITING = 10_000


class KeptImages:
    """A folder of images as they came, named by their SHA-256: equal images are kept once.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def keep(self, data: bytes, model: str = "", group: str | None = None) -> Path:
        """Write an image whole or not at all, under its model and group; its ending follows its first bytes."""
        under = self.folder / model if group is None else self.folder / model / _as_folder(group)
        path = under / (hashlib.sha256(data).hexdigest() + _ending(data))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        return path


class Audit:
    """A rotated JSONL file, and the thread that writes it; a full disk costs lines, which are counted, and no answer.

    Args:
        path: the file; rotated ones are called `path.1` (the youngest), `path.2`, ...
        max_bytes: size at which it is rotated.
        files: rotated ones that are kept.
        images: folder for the images, where asked for.
        measures: are told of lines written and lost.

    Attributes:
        trouble: why lines are being lost; ``None`` where none are.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, files: int, images: Path | None, measures: "Measures | None" = None
    ) -> None:
        self.path, self.max_bytes, self.files = path, max_bytes, files
        self.images = None if images is None else KeptImages(images)
        self.trouble: str | None = None
        self._measures = measures
        with path.open("ab"):  # a log that cannot be written at all is said at the start
            pass
        self._lines: queue.Queue[tuple[bytes, bytes | None] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, settings: Settings, measures: "Measures") -> "Audit":
        """As the settings say."""
        if settings.audit is None:
            raise ValueError("the settings name no audit file")
        return cls(
            settings.audit,
            max_bytes=settings.audit_bytes,
            files=settings.audit_files,
            images=settings.audit_images,
            measures=measures,
        )

    def note(self, record: Mapping[str, Any], image: bytes | None = None) -> None:
        """Queue a line, and the image where images are kept."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            self._lines.put_nowait((line, image if self.images is not None else None))
        except queue.Full:
            self._lost(f"the disk is slower than the requests: {_WAITING:,} lines wait")

    def close(self) -> None:
        """Write what waits."""
        self._lines.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._lines.get()) is not None:
            line, image = item
            try:
                self._write(line)
                if image is not None and self.images is not None:
                    self.images.keep(image)
            except OSError as error:
                self._lost(f"{self.path}: {error.strerror or error}")
                continue
            if self.trouble is not None:
                log.warning("the audit log is written again")
                self.trouble = None
            if self._measures is not None:
                self._measures.audit_written.inc()

    def _write(self, line: bytes) -> None:
        """Append a whole line; what a full disk let through of it is taken back."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            size = os.fstat(handle).st_size
            if size and size + len(line) > self.max_bytes:
                os.close(handle)
                handle = -1
                self._rotate()
                self._write(line)
                return
            written = os.write(handle, line)
            if written != len(line):
                os.ftruncate(handle, size)
                raise OSError(28, "no room for a whole line")
        finally:
            if handle >= 0:
                os.close(handle)

    def _rotate(self) -> None:
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def _lost(self, why: str) -> None:
        if self._measures is not None:
            self._measures.audit_lost.inc()
        if self.trouble != why:
            log.error("the audit log loses lines, and the service goes on: %s", why)
        self.trouble = why


def _as_folder(group: str) -> Path:
    """Where a group's images lie: under its own name, as ``--group folder`` reads it, and never elsewhere."""
    parts = [quote(part, safe=" ") for part in group.split("/") if part not in ("", ".")]
    return Path(*(part.replace(".", "%2E") if part.startswith(".") else part for part in parts))


def _ending(data: bytes) -> str:
    starts = {
        b"\x89PNG": ".png",
        b"\xff\xd8\xff": ".jpg",
        b"GIF8": ".gif",
        b"BM": ".bmp",
        b"II": ".tif",
        b"MM": ".tif",
        b"RIFF": ".webp",
    }
    return next((ending for start, ending in starts.items() if data.startswith(start)), ".pnm")
