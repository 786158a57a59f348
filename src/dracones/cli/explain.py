"""`dracones explain`: whether a likelihood can be trusted on these images, why not, and which rule to use instead."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.options import AsJson, BatchSize, Device, Model, Threads, require_folder_of, use_threads
from dracones.cli.output import emit, tell


def explain(
    model: Model,
    normal: Annotated[str, typer.Option("--normal", metavar="DATA", help="Images that belong, not trained on.")],
    other: Annotated[
        list[str], typer.Option("--other", metavar="NAME=DATA", help="Images that do not; give it again for more sets.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("explanation.html"),
    count: Annotated[
        int, typer.Option("--count", min=20, help="Images of each set at most, drawn by the seed.")
    ] = 1000,
    against: Annotated[
        str | None, typer.Option("--against", metavar="NAME", help="Also train a copy against this set, and compare.")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", metavar="DATA", help="Also train flows of other masks and bottlenecks on these: slow."),
    ] = None,
    train_steps: Annotated[
        int | None, typer.Option("--train-steps", min=1, help="Steps of each at most; default: until none gains.")
    ] = None,
    member: Annotated[
        list[Path] | None, typer.Option("--member", metavar="MODEL", help="A further model, for the ensemble.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="ANALYSIS", help="An analysis to leave out.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Bring images of another size to the model's; refused otherwise.")
    ] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Also what takes minutes: intrinsic dimension.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws of images, noise and probes.")] = 0,
    batch_size: BatchSize = 128,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page on MODEL's likelihood: can it be trusted on these images, why not, what helps."""
    use_threads(threads)
    require_folder_of(output)
    others = named_sets(other)
    import dracones
    from dracones import anatomy
    from dracones.files.atomic import write_text
    from dracones.training import RichProgress

    detector = dracones.load(model, device=device or "cpu")
    found = anatomy.explain(
        detector,
        normal,
        others,
        count=count,
        against=against,
        members=[dracones.load(path, device=device or "cpu") for path in member or ()],
        resize=resize,
        thorough=thorough,
        train=train,
        train_steps=train_steps,
        skip=skip or (),
        seed=seed,
        batch_size=batch_size,
        progress=RichProgress(),
    )
    page = anatomy.page(found)
    page.provenance(model=str(model), normal=normal, **others, seed=seed, dracones=dracones.__version__)
    written = page.write(output)
    numbers = write_text(written.with_suffix(".json"), json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
    if as_json:
        emit({"report": str(written), "numbers": str(numbers), **found.to_json()})
    else:
        tell(found.verdict.text)
        tell(f"wrote {written} and {numbers}")


def named_sets(texts: list[str]) -> dict[str, str]:
    """``NAME=DATA`` by name; without a name the data's own is taken.

    >>> named_sets(["digits=data/mnist", "letters/"])
    {'digits': 'data/mnist', 'letters': 'letters/'}

    Raises:
        ValueError: two sets of one name, or no data after the equals sign.
    """
    sets: dict[str, str] = {}
    for text in texts:
        name, equals, data = text.partition("=")
        if not equals:
            name, data = Path(text).stem, text
        if not name or not data:
            raise ValueError(f"--other takes NAME=DATA, got {text!r}; for example --other digits=data/mnist")
        if name in sets:
            raise ValueError(f"--other names two sets {name!r}; give each its own name, as in a={sets[name]} b={data}")
        sets[name] = data
    return sets
