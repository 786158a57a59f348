"""`dracones serve`: models answer over HTTP, with a page."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.models import is_exported, load_model, use_threads_for
from dracones.cli.options import Classifier, Device, MaxPixels, Threads, require_folder, require_folder_of
from dracones.cli.output import tell

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Files of `fit` or `export`, or NAME=FILE to name one.")
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but this machine's own needs DRACONES_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.01, help="Seconds within which a request is answered or refused.")
    ] = 2.0,
    max_requests: Annotated[int, typer.Option("--max-requests", min=1, help="Requests in the house at a time.")] = 64,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Images scored together.")] = 32,
    max_pixels: MaxPixels = None,
    max_upload: Annotated[int, typer.Option("--max-upload", min=1, metavar="BYTES", help="Size of one image file.")] = 2
    ** 25,
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="JSONL log of what was said of which image.")
    ] = None,
    audit_images: Annotated[
        Path | None, typer.Option("--audit-images", metavar="DIR", help="Keep the images too, by their hash.")
    ] = None,
    confirmed: Annotated[
        Path | None,
        typer.Option("--confirmed", metavar="DIR", help="Keep images that a person calls good, to calibrate by."),
    ] = None,
    reload_every: Annotated[
        float, typer.Option("--reload-every", min=0, help="Seconds between looks at the model files; 0: never.")
    ] = 2.0,
    drain: Annotated[
        float, typer.Option("--drain", min=0, help="Seconds between SIGTERM and the closed door, while not ready.")
    ] = 1.0,
    without_threshold: Annotated[
        bool, typer.Option("--without-threshold", help="Serve models that give scores and no verdict, too.")
    ] = False,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Answer over HTTP what MODELs say of images; a page to try it is at /.

    Listens on this machine alone unless --host says otherwise; then requests have to bear the token that the
    environment variable DRACONES_TOKEN holds. SIGTERM: what is inside is answered, then it ends with 0.
    """
    from dracones.images.limits import Limits
    from dracones.serving import Settings
    from dracones.serving import serve as run
    from dracones.serving.settings import TOKEN_VARIABLE

    named = names_of(models)
    require_folder_of(audit)
    for folder in (audit_images, confirmed):
        if folder is not None:
            require_folder(folder)
    most = Settings().limits.max_pixels if max_pixels is None else max_pixels
    settings = Settings.model_validate(
        {
            "host": host,
            "port": port,
            "token": os.environ.get(TOKEN_VARIABLE) or None,
            "deadline": deadline,
            "max_requests": max_requests,
            "max_batch": max_batch,
            "limits": Limits(max_pixels=most, max_file_bytes=max_upload),
            "max_body_bytes": max(2 * max_upload, 2**20),
            "reload_every": reload_every,
            "drain": drain,
            "audit": audit,
            "audit_images": audit_images,
            "confirmed": confirmed,
        }
    )
    for path in named.values():
        use_threads_for(path, threads)
    logging.basicConfig(format="%(message)s", level=logging.INFO)

    def load(path: Path) -> Any:
        if is_exported(path):
            return load_model(path)
        return load_model(path, device=device, classifier=classifier)

    run(
        named,
        settings,
        load=load,
        without_threshold=without_threshold,
        ready=lambda address: tell(f"serving {', '.join(named)} at {address}/"),
    )


def names_of(models: Sequence[str]) -> dict[str, Path]:
    """File of each name; a file is called by its own name without the ending unless NAME=FILE names it.

    Raises:
        ValueError: two of one name, or a name that is no part of an address.

    >>> names_of(["line/bottle.onnx", "cap=models/v2.safetensors"])
    {'bottle': PosixPath('line/bottle.onnx'), 'cap': PosixPath('models/v2.safetensors')}
    """
    found: dict[str, Path] = {}
    for text in models:
        name, equals, file = text.partition("=")
        if not equals or Path(text).exists():
            name, file = Path(text).stem, text
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a model's name (letters, digits, _ . -); name it: NAME={file}")
        if name in found:
            raise ValueError(f"two models are called {name!r}: {found[name]} and {file}; name one: NAME={file}")
        found[name] = Path(file)
    return found
