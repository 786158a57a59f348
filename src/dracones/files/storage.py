"""A detector's file: one safetensors, its header a versioned JSON with digests; written atomically, never unpickled."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from dracones.files import tensors as raw
from dracones.files.atomic import replacing
from dracones.files.tensors import Table

FORMAT = 2
_KEY = "dracones"


@dataclass(frozen=True)
class Digests:
    """SHA-256 of the three parts of a file, as hex.

    Attributes:
        header: of what the detector is: method, configuration, treatment, calibration.
        tensors: of names, types, shapes and bytes of all tensors.
        origin: of what differs from one equal fit to the next: time, duration, versions.
    """

    header: str
    tensors: str
    origin: str

    @property
    def model(self) -> str:
        """One name for the detector: equal for equal fits, whenever and however often interrupted they ran."""
        return _sha256(f"{self.header}\n{self.tensors}".encode())


@dataclass(frozen=True)
class StoredDetector:
    """An open file whose header has been read; tensors are read when asked for."""

    path: Path
    header: dict[str, Any]
    origin: dict[str, Any]
    digests: Digests
    table: Table
    file: BinaryIO

    def tensor(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            ValueError: there is none of this name, or the file ends before it does.
        """
        with _naming(self.path):
            return raw.read_tensor(self.file, self.table.places[name])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: self.tensor(name) for name in self.table.places}

    def verify(self) -> None:
        """Compare header and tensors with the digests that were written beside them, in constant memory.

        Raises:
            ValueError: which part was altered.
        """
        found = Digests(
            _sha256(_canonical(self.header)),
            self._digest_of_tensors(),
            _sha256(_canonical(self.origin)),
        )
        parts = {"header": "header", "tensors": "tensors", "origin": "record of origin"}
        altered = [words for part, words in parts.items() if getattr(found, part) != getattr(self.digests, part)]
        if altered:
            raise ValueError(
                f"{self.path} was altered after it was saved: the digest of its {' and '.join(altered)} differs; copy "
                "it again, or fit anew"
            )

    def _digest_of_tensors(self) -> str:
        digest = hashlib.sha256()
        with _naming(self.path):
            for name, place in sorted(self.table.places.items()):
                digest.update(raw.described(name, place.dtype, place.shape))
                for piece in raw.raw_chunks(self.file, place):
                    digest.update(piece)
        return digest.hexdigest()


def write(
    path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], origin: Mapping[str, Any] | None = None
) -> Digests:
    """Write tensors and header to ``path``; a full disk or a kill leaves a file that was there before whole.

    Args:
        path: the file; its folder exists.
        header: JSON-able, without NaN: what the detector is.
        tensors: by name.
        origin: JSON-able: what differs between equal fits; has its own digest and is not part of the model's.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the disk refused; the temporary file is removed.
        ValueError: a number in the header is not finite.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first")
    whole = _contiguous(tensors)
    digests, origin = digests_of(header, whole, origin or {}), dict(origin or {})
    content = {"format": FORMAT, "digests": asdict(digests), "header": dict(header), "origin": origin}
    metadata = {_KEY: _canonical(content).decode()}
    with replacing(path) as temporary:
        raw.write_tensors(temporary, whole, metadata)
    return digests


def digests_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor], origin: Mapping[str, Any]) -> Digests:
    """The digests that `write` puts into a file of these parts."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_contiguous(tensors).items()):
        digest.update(raw.described(name, tensor.dtype, tuple(tensor.shape)))
        digest.update(raw.raw_bytes(tensor))
    return Digests(_sha256(_canonical(header)), digest.hexdigest(), _sha256(_canonical(origin)))


@contextmanager
def opened(path: str | Path) -> Iterator[StoredDetector]:
    """Open a file that `write` made; its header is read and its layout checked, its digests are not (`verify`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, truncated, not made by dracones, or made by another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_absent(path))
    with path.open("rb") as file:
        try:
            table = raw.read_table(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a whole safetensors file ({error}): cut off, damaged or of another kind; copy it again"
            ) from None
        with _naming(path):
            content = _content(table)
        yield StoredDetector(path, content["header"], content["origin"], Digests(**content["digests"]), table, file)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file, compared with their digests.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `opened`, or altered.
    """
    with opened(path) as stored:
        stored.verify()
        return stored.header, stored.tensors()


def _absent(path: Path) -> str:
    """That there is no such model, and what else may have been meant."""
    if path.is_dir():
        return f"no model file at {path}: it is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"no model file at {path}: there is no folder {path.parent}"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    # The ending, which all models share, makes no two names alike.
    stems = {Path(name).stem: name for name in names}
    near = [stems[stem] for stem in get_close_matches(path.stem, stems, n=3, cutoff=0.5)]
    models = sorted(name for name in names if name.endswith(path.suffix or ".safetensors"))
    if near:
        return f"no model file at {path}; did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    there = f"there are {', '.join(models[:5])}" if models else "make one with `dracones fit DATA -o MODEL`"
    return f"no model file at {path}; {there}"


def _content(table: Table) -> dict[str, Any]:
    if set(table.metadata) != {_KEY}:
        raise ValueError(f"a safetensors file, but dracones did not write it: its metadata is not {_KEY!r} alone")
    content = raw.strict_json(table.metadata[_KEY])
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int:
        raise ValueError("its header names no format; it was damaged or edited: copy it again")
    if version != FORMAT:
        origin = content.get("origin", content.get("provenance"))
        writer = origin.get("dracones", "?") if isinstance(origin, dict) else "?"
        advice = "install that version or newer" if version > FORMAT else "fit again, or install that version"
        raise ValueError(
            f"format {version}, and this dracones reads format {FORMAT}; it was written by dracones {writer}: {advice}"
        )
    texts = isinstance(content.get("digests"), dict) and all(isinstance(v, str) for v in content["digests"].values())
    if (
        content.keys() != {"format", "digests", "header", "origin"}
        or not texts
        or content["digests"].keys() != {"header", "tensors", "origin"}
        or not isinstance(content["header"], dict)
        or not isinstance(content["origin"], dict)
        or _canonical(content).decode() != table.metadata[_KEY]
    ):
        raise ValueError("its header is not one that dracones writes; it was damaged or edited: copy it again")
    checked: dict[str, Any] = content
    return checked


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in memory of its own, as the library wants them; copied only where that is not so already."""
    seen: set[int] = set()
    whole = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or (plain.nbytes and storage.data_ptr() in seen):
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        whole[name] = plain
    return whole


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
