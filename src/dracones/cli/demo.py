"""`dracones demo`: the whole story on built-in photographs, in under two minutes, with nothing to download."""

import time
from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.options import AsJson, require_folder, use_threads
from dracones.cli.output import emit, table, tell


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where everything is written.")] = Path(
        "dracones-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of crops, scenes, weights and batches.")] = 0,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="CPU threads; one is quick enough, and stays so beside other work.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Learn one photograph, be fooled by others, repair, calibrate, and point at what does not belong."""
    started = time.monotonic()
    require_folder(output)
    use_threads(threads)
    from dracones.demo import demo_images, tell_story
    from dracones.demo.page import write_all
    from dracones.demo.story import FALSE_ALARM_RATE, summary
    from dracones.training import RichProgress

    images = demo_images(seed)
    result = tell_story(images, seed=seed, progress=RichProgress())
    files = write_all(output, result, images, seed)
    found = {
        **summary(result),
        "seconds": round(time.monotonic() - started, 1),
        "files": [str(path) for path in files],
    }
    if as_json:
        emit(found)
        return
    rules = list(next(iter(result.auroc.values())))
    rows = [[name, *(f"{values[rule]:.3f}" for rule in rules)] for name, values in result.auroc.items()]
    table("AUROC against held-out gravel, by scoring rule (0.5 = chance, below = fooled)", ["images of", *rules], rows)
    tell(
        f"false alarms: {FALSE_ALARM_RATE:.1%} promised, {result.realised:.1%} of {len(images.test)} held-out crops\n"
        f"heat maps of foreign objects: pixel AUROC {found['pixel_auroc']:.3f}\n"
        f"{found['seconds']:.0f} s; open {output / 'report.html'}"
    )
