"""What a page says of how small a made defect may be: table, curves, example pictures."""

import numpy as np

from dracones.detectors import Detector, Sensitivity
from dracones.images import Defect, open_images
from dracones.report import Picture, Report, overlay, rate_curves


def sensitivity_page(detector: Detector, found: Sensitivity) -> Report:
    """A page of its own."""
    page = Report(f"{detector.info.name}: how small a defect it sees", subtitle=detector.info.citation)
    good = found.good
    page.verdict(
        "How small and how faint a made defect may be and still raise the alarm.",
        points=[
            *found.notes,
            f"Promised are {found.false_alarm_rate:.2%} false alarms; {good.count} of {good.total} good images "
            f"({good.share.value:.2%}, 95 % interval {good.share.low:.2%} to {good.share.high:.2%}) raise one.",
        ],
    )
    add_sensitivity(page, detector, found)
    page.provenance(**{key: value for key, value in detector.provenance.items() if key not in ("training", "met")})
    return page


def add_sensitivity(page: Report, detector: Detector, found: Sensitivity) -> None:
    """A section on made defects."""
    section = page.section("Sensitivity to made defects")
    section.text(*found.notes)
    sizes = list(dict.fromkeys(cell.size for cell in found.cells))
    contrasts = list(dict.fromkeys(cell.contrast for cell in found.cells))
    kinds = list(dict.fromkeys(cell.kind for cell in found.cells))
    for contrast in reversed(contrasts):
        curves = {
            str(kind): [cell.found.share for cell in found.cells if (cell.kind, cell.contrast) == (kind, contrast)]
            for kind in kinds
        }
        section.figure(
            rate_curves(
                curves,
                sizes,
                xlabel="size, as a share of the shorter side",
                ylabel="made defects found",
                base=found.false_alarm_rate,
            ),
            f"At {contrast:.0%} of the full change, with exact 95 % intervals.",
        )
    section.table(
        [
            {"kind": cell.kind, "contrast": cell.contrast, "size": cell.size, "found": cell.found.share}
            for cell in sorted(found.cells, key=lambda cell: (kinds.index(cell.kind), cell.contrast, cell.size))
        ],
        caption=f"Share of {found.cells[0].found.total} made defects that raise an alarm.",
    )
    pictures = {str(kind): [_drawn(detector, one) for one in examples] for kind, examples in found.examples.items()}
    section.grid(
        pictures,
        [f"{size:.3g}" for size in sizes],
        "Made defects by size, at the highest contrast. Green-blue encloses what was made"
        + ("" if detector.heat_range is None else f", white what is {detector.heat_range.meaning()}")
        + ".",
    )


def _drawn(detector: Detector, made: Defect) -> Picture:
    image, mask = made.image.numpy(), made.mask.numpy()
    (verdict,) = detector.predict(open_images([made.image]), maps=detector.heat_range is not None)
    said = "found" if verdict.is_anomaly else "missed"
    if verdict.map is None or detector.heat_range is None:
        bare = np.zeros(mask.shape)
        return overlay(image, bare, mask=mask, low=0.0, high=1.0, alt=f"a made defect, {said}")
    low, high = detector.heat_range.colours
    drawn = overlay(
        image,
        verdict.map,
        mask=mask,
        threshold=detector.heat_range.threshold,
        low=low,
        high=high,
        alt=f"a made defect, {said}",
    )
    return drawn.thumbnail(256)
