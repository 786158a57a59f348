"""Options that several verbs share, and how text on the command line becomes a typed option."""

import re
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable image instead of skipping it.")]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, help="Images scored together; scores differ by rounding alone (about 2e-6)."),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A file that `dracones fit` wrote.")]
Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A folder, file, .npz/.npy, data set folder, or built-in set of images."),
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Largest image that is read, height x width; 134 megapixels by default."),
]
PixelRate = Annotated[
    float | None,
    typer.Option(
        "--pixel-rate",
        help="Share of normal images that may have any pixel outlined; the false-alarm rate if not given.",
    ),
]
Roi = Annotated[
    Path | None,
    typer.Option(
        "--roi",
        metavar="MASK",
        help="Region outside which nothing counts: an image for all, or a folder with one each.",
    ),
]
EveryPage = Annotated[
    str, typer.Option("--pages", help="Of files with several pages or frames: first, or all as images of their own.")
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="WHAT",
        help="A promise for each group (camera, product, class): folder, a pattern of names, or TABLE:COLUMN.",
    ),
]
Classifier = Annotated[
    str | None,
    typer.Option("--classifier", help="What a guard wraps: timm name, module:function, file.py:function, .pt2 file."),
]


def runtime(classifier: str | None) -> dict[str, Any]:
    """What `dracones.load` is handed beside the file: the classifier a guard wraps, where one is named.

    >>> runtime(None), runtime("nets:resnet20")
    ({}, {'classifier': 'nets:resnet20'})
    """
    return {} if classifier is None else {"classifier": classifier}


_PATHS = {"weights", "classifier_weights", "classifier"}
"""Options that may name a file; each takes words and names of networks too."""
_WEIGHTS = (".safetensors", ".pt", ".pth", ".pt2", ".bin", ".py")

Normal = Annotated[str | None, typer.Option("--normal", metavar="DATA", help="Images that belong.")]
Anomalous = Annotated[str | None, typer.Option("--anomalous", metavar="DATA", help="Images that do not.")]
Masks = Annotated[
    Path | None, typer.Option("--masks", metavar="DIR", help="Masks of the anomalous images, named like them.")
]
NoMasks = Annotated[
    bool, typer.Option("--no-masks", help="Judge images alone, whatever masks there are; no heat map is made.")
]
Category = Annotated[
    Path | None,
    typer.Option(
        "--category",
        "--mvtec",
        metavar="DIR",
        help="Both sides and their masks: a category laid out as MVTec AD, LOCO, BTAD, VisA or Kolektor; or a table.",
    ),
]


def require_folder_of(path: Path | None) -> None:
    """Refuse a file that could not be written, before the work that would fill it.

    Raises:
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder.
        PermissionError: its folder may not be written to.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    _try_to_write(path.parent, str(path))


def require_folder(folder: Path) -> None:
    """Make a folder that will be filled, or refuse it before the work.

    Raises:
        NotADirectoryError: a file is in its place.
        PermissionError: it may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"cannot write to {folder}: it is a file; name a folder") from None
    except OSError as error:
        raise PermissionError(f"cannot make the folder {folder} ({error.strerror or error})") from None
    _try_to_write(folder, f"to {folder}")


def _try_to_write(folder: Path, what: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise PermissionError(f"cannot write {what}: the folder {folder} takes no file ({reason})") from None


def use_threads(threads: int | None) -> None:
    """Have torch use this many threads in the rest of the process."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts into options; values are read as TOML where they are, ``none`` as None, else as text.

    >>> parse_settings(["epochs=5", "rule=typicality", "size=[32, 32]", "density.steps=4", "max_steps=none"])
    {'epochs': 5, 'rule': 'typicality', 'size': [32, 32], 'density.steps': 4, 'max_steps': None}

    >>> parse_settings(["mean=[.485, .456]", "weights=./a.safetensors"])
    {'mean': [0.485, 0.456], 'weights': './a.safetensors'}

    Raises:
        ValueError: a setting without ``=``.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes key=value, got {setting!r}; for example --set epochs=5")
        options[key.strip()] = _read_value(value.strip())
    return options


def read_config(path: Path) -> dict[str, Any]:
    """Options from a TOML file; paths in it are relative to its folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, with the line that is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file at {path}")
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    return with_paths(options, lambda named: path.parent / named)


def with_paths(options: dict[str, Any], place: Callable[[Path], Path]) -> dict[str, Any]:
    """The options with those that name a file on this machine said another way: relative to elsewhere.

    >>> with_paths({"weights": "a.pth", "classifier": "nets.py:small", "seed": 3}, lambda path: Path("to") / path)
    {'weights': 'to/a.pth', 'classifier': 'to/nets.py:small', 'seed': 3}
    >>> with_paths({"weights": "pretrained", "classifier": "resnet18.a1_in1k"}, lambda path: Path("to") / path)
    {'weights': 'pretrained', 'classifier': 'resnet18.a1_in1k'}
    """
    found = dict(options)
    for key in _PATHS & options.keys():
        if isinstance(options[key], str):
            named, colon, part = options[key].partition(":")
            is_path = Path(named).suffix in _WEIGHTS or "/" in named or place(Path(named)).is_file()
            found[key] = str(place(Path(named))) + colon + part if is_path else options[key]
    return found


def _read_value(text: str) -> Any:
    # TOML wants a digit before the point; people write .5.
    for written in (text, re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)):
        try:
            return tomllib.loads(f"value = {written}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return None if text == "none" else text
