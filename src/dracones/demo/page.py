"""What the demo leaves behind: model, scores, pictures, one page to read."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dracones.demo.overview import draw_overview
from dracones.demo.photographs import SURFACE, DemoImages
from dracones.demo.story import FALSE_ALARM_RATE, RULES, DemoResult, summary, worst_and_repaired
from dracones.report import (
    Picture,
    Report,
    Tile,
    image_picture,
    overlay,
    p_value_histogram,
    score_histogram,
    training_curve,
    write_table,
)

_MEANING = {
    "likelihood": "minus log p(x): what one would try first",
    "latent": "minus log p(z), the base distribution's share of log p(x)",
    "volume": "minus log|det|, the change of volume's share",
    "typicality": "distance of log p(x) from its mean on normal images (Nalisnick 2019b)",
    "complexity": "minus log p(x) less the size of the compressed image (Serra 2020)",
    "dose": "densities of log p(x), log p(z), log|det| on normal images (Morningstar 2021)",
    "auto": "all statistics of density and image, each direction, merged on normal images alone",
}


def write_all(output: Path, result: DemoResult, images: DemoImages, seed: int) -> list[Path]:
    """Write model, table of scores, pictures, numbers and page into ``output``; returns the files."""
    output.mkdir(parents=True, exist_ok=True)
    low, high = _scale(result)
    scenes = [
        overlay(images.scenes.images[i].numpy(), one, mask=images.scenes.masks[i].numpy(), low=low, high=high)
        for i, one in enumerate(result.maps)
    ]
    numbers = output / "results.json"
    numbers.write_text(json.dumps({**summary(result), "seed": seed, "seconds_by_step": result.seconds}, indent=1))
    return [
        result.detector.save(output / "model.safetensors"),
        write_table(output / "scores.csv", _rows(result)),
        draw_overview(output / "overview.png", result, images),
        *(picture.write(output / f"scene-{i}.png") for i, picture in enumerate(scenes)),
        _page(result, images, scenes).write(output / "report.html"),
        numbers,
    ]


def _rows(result: DemoResult) -> list[dict[str, Any]]:
    """One row an image: its set, and its score by every rule."""
    sets = result.scores[RULES[0]]
    return [
        {"set": name, "image": i, **{rule: float(result.scores[rule][name][i]) for rule in RULES}}
        for name, values in sets.items()
        for i in range(len(values))
    ]


def _page(result: DemoResult, images: DemoImages, scenes: list[Picture]) -> Report:
    name, fooled, repaired = worst_and_repaired(result)
    page = Report("What belongs, and what does not", subtitle=f"A density learns crops of a photograph of {SURFACE}.")
    page.verdict(
        f"The density finds crops of {name} likelier than crops of the {SURFACE} it was trained on "
        f"(AUROC {fooled:.3f} where 0.5 is chance). The rule “auto”, fitted on {SURFACE} alone, puts that right: "
        f"{repaired:.3f}.",
        level="good" if repaired > 0.95 else "warning",
        points=[
            f"{FALSE_ALARM_RATE:.0%} false alarms were promised; {result.realised:.1%} of {len(images.test)} crops "
            "that were never seen raised one.",
            f"Sliding over larger scenes, the same density points at foreign objects: pixel AUROC "
            f"{result.pixel['auroc']['value']:.3f}.",
        ],
    )
    page.key_number(f"{name}, likelihood", fooled)
    page.key_number(f"{name}, auto", repaired)
    page.key_number("false alarms", f"{result.realised:.1%}")
    page.key_number("pixel AUROC", result.pixel["auroc"])
    _images(page, result, images)
    _rules(page, result, name)
    _promise(page, result)
    _scenes(page, images, scenes)
    _training(page, result)
    facts = result.detector.provenance
    page.provenance(**{key: value for key, value in facts.items() if key not in ("training", "met")})
    return page


def _images(page: Report, result: DemoResult, images: DemoImages) -> None:
    section = page.section("The images")
    section.text(
        f"Twenty-four cells of the photograph are learnt from; crops of other cells and of other photographs are "
        f"scored. Crops are {images.train.shape[-1]} pixels wide, gray, of 256 levels."
    )
    tiles = [Tile(_mosaic(images.test), SURFACE, ["held out; belongs"])]
    tiles += [
        Tile(_mosaic(crops), name, [f"likelihood {values['likelihood']:.3f}", f"auto {values['auto']:.3f}"])
        for (name, crops), values in zip(images.others.items(), result.auroc.values(), strict=True)
    ]
    section.tiles(tiles, "Four crops of each set, with the AUROC of two rules against held-out gravel.")


def _rules(page: Report, result: DemoResult, worst: str) -> None:
    section = page.section("One density, seven rules")
    # As the terminal shows them: an AUROC of 2e-06 is 0.000.
    rows = [
        {"images of": name, **{rule: round(value, 3) for rule, value in values.items()}}
        for name, values in result.auroc.items()
    ]
    section.table(rows, caption="AUROC against held-out gravel: below 0.5 the rule prefers the other set to its own.")
    section.table([{"rule": rule, "what it looks at": _MEANING[rule]} for rule in RULES])
    for rule in ("likelihood", "auto"):
        groups = {SURFACE: result.scores[rule]["test"], worst: result.scores[rule][worst]}
        section.figure(
            score_histogram(groups),
            f"Scores by {rule}. Larger is more anomalous: {worst} should lie to the right of {SURFACE}.",
        )


def _promise(page: Report, result: DemoResult) -> None:
    p_values = cast("NDArray[np.float64]", result.prediction.p_values)  # the demo's detector is calibrated
    section = page.section("The promise")
    section.text(
        f"Calibration saw {len(result.detector.calibration)} held-out crops and no anomaly. A threshold that promises "
        f"{FALSE_ALARM_RATE:.0%} false alarms raised {result.realised:.1%} on the test crops."
    )
    section.figure(
        p_value_histogram({f"{SURFACE}, test": p_values}, false_alarm_rate=FALSE_ALARM_RATE),
        "Conformal p-values of normal images lie flat.",
    )


def _scenes(page: Report, images: DemoImages, scenes: list[Picture]) -> None:
    section = page.section("Where it does not belong")
    section.text("A coin, or a piece of another photograph, lies on gravel that was held out; its outline is known.")
    tiles = [
        Tile(image_picture(np.kron(images.scenes.images[i, 0].numpy(), np.ones((2, 2)))), f"scene {i}", second=picture)
        for i, picture in enumerate(scenes)
    ]
    section.tiles(tiles, "Scene and heat map; the line is the object's true outline, which the detector never sees.")


def _training(page: Report, result: DemoResult) -> None:
    run = result.detector.provenance["training"][0]
    section = page.section("Training")
    section.figure(training_curve(run["history"], best_step=run["best_step"], label="bits per dimension"))
    section.table([{"step": step, "seconds": seconds} for step, seconds in result.seconds.items()], digits=1)


def _mosaic(crops: Any) -> Picture:
    """Four crops in a square, twice as large."""
    four = crops[:4, 0].numpy()
    square = np.block([[four[0], four[1]], [four[2], four[3]]])
    return image_picture(np.kron(square, np.ones((3, 3))))


def _scale(result: DemoResult) -> tuple[float, float]:
    return float(np.median(result.maps)), float(np.quantile(result.maps, 0.98))
