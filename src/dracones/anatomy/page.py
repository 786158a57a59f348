"""The page that tells an explanation: verdict first, then what it rests on, each figure with what to look for."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dracones.anatomy.complexity import Complexity
from dracones.anatomy.couplings import Couplings
from dracones.anatomy.decomposition import Decomposition
from dracones.anatomy.explain import Explanation
from dracones.anatomy.figures import drawn, signed_limit
from dracones.anatomy.finding import Finding
from dracones.anatomy.graying import Graying
from dracones.anatomy.inductive_bias import InductiveBias
from dracones.anatomy.latents import SHOWN, Latents
from dracones.anatomy.repairs import Repairs
from dracones.anatomy.second_order import SecondOrder
from dracones.anatomy.sensitivity import Sensitivity
from dracones.anatomy.sides import evenly
from dracones.report import Picture, Report, Section, image_picture, map_picture

_EXAMPLES = 6
_COUPLINGS = 5


def page(explanation: Explanation) -> Report:
    """A report of an explanation; `Report.write` makes one self-contained HTML file of it.

    Example:
        >>> import torch
        >>> from dracones import densities
        >>> from dracones.anatomy import explain
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = explain(density, torch.rand(40, 1, 8, 8), {"black": torch.zeros(20, 1, 8, 8)}, skip=["checks"])
        >>> "Which rule to use instead" in page(found).to_html()
        True
    """
    others = [name for name in explanation.counts if name != "normal"]
    report = Report(
        "Can this likelihood be trusted?", subtitle=f"{explanation.model}: normal images against {', '.join(others)}"
    )
    verdict = explanation.verdict
    report.verdict(verdict.text, level=verdict.level, points=verdict.points)
    _key_numbers(report, explanation)
    _images(report, explanation)
    for finding in explanation.findings.values():
        section = report.section(finding.title)
        _WRITERS.get(type(finding), _write)(section, finding)
    _left_out(report, explanation)
    return report


def _key_numbers(report: Report, explanation: Explanation) -> None:
    state = explanation.learnt
    report.key_number("bits/dim of normal images", state.bits)
    if state.codec_bits is not None:
        report.key_number(f"bits/dim that {state.codec} needs for them", state.codec_bits)
    rules, terms = explanation.findings["rules"], explanation.findings["terms"]
    if isinstance(rules, Repairs) and isinstance(terms, Decomposition):
        for name in list(terms.total.auroc)[:3]:
            report.key_number(f"AUROC of the likelihood, {name}", terms.total.auroc[name])
            report.key_number(f"AUROC of {rules.judged}, {name}", rules.auroc[rules.judged][name])


def _images(report: Report, explanation: Explanation) -> None:
    section = report.section("The images")
    rows = {
        name: [image_picture(image, alt=f"{name}, an example") for image in evenly(images, _EXAMPLES).numpy()]
        for name, images in explanation.sides.all.items()
    }
    width = min(len(row) for row in rows.values())
    counts = ", ".join(f"{count:,} {name}" for name, count in explanation.counts.items())
    caption = f"Some of the images that everything below was measured on: {counts}."
    section.grid({name: row[:width] for name, row in rows.items()}, [""] * width, caption)
    for note in explanation.notes:
        section.note(note, level="warning")


def _write(section: Section, finding: Finding) -> None:
    """A figure with what to look for, and the numbers."""
    section.figure(drawn(finding.figure, finding.title, finding.to_json()), finding.look_for)
    section.table(finding.rows(), caption="Values with 95 % intervals.")


def _rules(section: Section, found: Repairs) -> None:
    section.figure(drawn(found.figure, "AUROC of every rule on every set", found.to_json()), found.look_for)
    sets = list(found.judged_on)[1:]
    judged = ", ".join(f"{count:,} {name}" for name, count in found.judged_on.items())
    saved = "" if found.saved is None else f" “{found.saved}” keeps what its own fit gave it."
    section.table(
        found.rows(),
        caption=f"AUROC. Rules fitted on {found.fitted_on:,} normal images, judged on others: {judged}.{saved}",
        best=dict.fromkeys([*sets, "mean"], "largest"),
    )
    if found.not_possible:
        lacking = [{"rule": rule, "it needs": reason} for rule, reason in found.not_possible.items()]
        section.table(lacking, caption="Rules that cannot be judged here.")


def _terms(section: Section, found: Decomposition) -> None:
    section.figure(drawn(found.figure, "Histograms of the likelihood and its terms", found.to_json()), found.look_for)
    section.figure(
        drawn(found.auroc_figure, "AUROC of every term"),
        "Every term as if it alone were the likelihood, level by level of a multi-scale flow (level 0 is the finest).",
    )
    section.table(found.rows(), caption="Gap: other set less normal images; positive where the set gets more.")


def _complexity(section: Section, found: Complexity) -> None:
    section.figure(drawn(found.figure, "Density's bits against the codec's", found.to_json()), found.look_for)
    together = found.correlation["all"]
    if together is not None and found.rank_correlation is not None:
        section.text(
            f"Over all sets the two correlate with {together.value:.2f} ({together.low:.2f} to {together.high:.2f}); "
            f"in ranks {found.rank_correlation:.2f}."
        )
    section.table(found.rows(), caption="Values with 95 % intervals; the last three columns against the normal images.")


def _graying(section: Section, found: Graying) -> None:
    section.figure(drawn(found.figure, "Bits per dimension against contrast", found.to_json()), found.look_for)
    section.text(*found.in_words())
    headings = [f"{contrast:g}" for contrast in found.contrasts]
    pale = {f"towards {name}": [_pixels(image) for image in each.examples] for name, each in found.towards.items()}
    section.grid(pale, headings, "One normal image as it pales.")
    chosen = [row for row in found.rows() if row["contrast"] in (found.contrasts[0], 0.4, found.contrasts[-1])]
    section.table(chosen, caption="AUROC against the normal images at full contrast.")


def _second_order(section: Section, found: SecondOrder) -> None:
    section.figure(drawn(found.figure, "Measured and predicted gaps", found.to_json()), found.look_for)
    maps = list(found.variance_maps.values())
    limit = signed_limit(*[each.mean(0) for each in maps])
    section.grid(
        {"variance, other − normal": [_signed(each, limit) for each in maps]},
        list(found.variance_maps),
        "Where the pixels of the other set vary less (blue) or more (red) than those of the normal images.",
    )
    section.text(*found.in_words())
    section.figure(
        drawn(found.shrink_figure, "Measured over predicted change of log p by contrast"),
        "Every set moved to the mean normal image and shrunk towards it: up to which contrast the expansion holds.",
    )
    section.table(
        found.rows(),
        caption="Variance gap: summed over the pixels in [0, 1]. The rest in bits/dim, positive where the other set is "
        "likelier. Means aligned: measured with the other set moved to the normal mean; formulas for constant-volume "
        "Glow alone; from the means: what the argument takes to be zero.",
    )
    section.table(found.shrink_rows(), caption="Bits/dim gained on the mean image as each set shrinks towards it.")


def _latents(section: Section, found: Latents) -> None:
    shown = [(name, index) for name, images in found.images.items() for index in (0, len(images) // 2)]
    rows = {"image": [_pixels(found.images[name][index]) for name, index in shown]}
    for label, latents in found.layers().items():
        rows[label] = [_signed(latents[name][index], SHOWN) for name, index in shown]
    section.grid(rows, [name for name, _ in shown], found.look_for)
    section.table(
        found.rows(),
        caption="In parentheses what white noise has. Neighbours: correlation of neighbouring latents, then in the "
        "mean of the draws; outline: correlation of their magnitudes there; likeness: correlation with the image.",
    )


def _couplings(section: Section, found: Couplings) -> None:
    section.figure(drawn(found.figure, "Correlation of the prediction by coupling", found.to_json()), found.look_for)
    section.text(*found.in_words())
    chosen = found.chosen(_COUPLINGS)
    headings = ["image", *(f"coupling {index + 1}" for index in chosen)]
    for layers, meaning in (
        (found.predictions, "What each coupling predicts, −t, where it changes anything."),
        (found.scales, "Log-scales s: red adds to the volume term, blue takes from it."),
        (found.activations, "What each coupling passes on, brought to mean 0 and deviation 1."),
    ):
        rows = {}
        for name, image in found.images.items():
            shown = (_signed(layers[name][index], found.limit(layers, index)) for index in chosen)
            rows[name] = [_pixels(image), *shown]
        section.grid(rows, headings, meaning)
    few = {f"{index + 1}: {found.layers[index].name}" for index in chosen}
    section.table([row for row in found.rows() if row["coupling"] in few], caption="Some couplings in numbers.")


def _inductive_bias(section: Section, found: InductiveBias) -> None:
    section.figure(drawn(found.auroc_figure, "AUROC of the likelihood by variant", found.to_json()), found.look_for)
    section.figure(drawn(found.figure, "Histograms of log p by variant"), "Every variant on its own scale, first seed.")
    section.text(*found.in_words())
    section.table(
        found.rows(),
        caption="Means over the seeds; intervals are the test sets', ± the seeds' spread. Last gain: bits/dim that "
        "held-out images gained between the last two readings; where it is not near zero, training had not ended.",
    )


def _checks(section: Section, found: Sensitivity) -> None:
    section.figure(drawn(found.figure, "AUROC of the likelihood under every check", found.to_json()), found.look_for)
    section.text(*found.in_words())
    shown = [row for row in found.rows() if row["check"] != "seed"]
    section.table(shown, caption="Values with 95 % intervals.")


def _left_out(report: Report, explanation: Explanation) -> None:
    if explanation.refused:
        section = report.section("What this model does not support")
        section.table([{"analysis": name, "why": reason} for name, reason in explanation.refused.items()])


def _pixels(image: Tensor) -> Picture:
    return image_picture(image.numpy(), alt="image")


def _signed(values: Tensor, limit: float) -> Picture:
    return map_picture(values.mean(0).numpy(), low=-limit, high=limit, kind="signed", alt="signed values")


_WRITERS: dict[type[Finding], Callable[[Section, Any], None]] = {
    Repairs: _rules,
    Decomposition: _terms,
    Complexity: _complexity,
    Graying: _graying,
    SecondOrder: _second_order,
    Latents: _latents,
    Couplings: _couplings,
    InductiveBias: _inductive_bias,
    Sensitivity: _checks,
}
