"""The verdict in words: whether a likelihood can be trusted on these images, why not, and what to use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dracones.anatomy.decomposition import Decomposition, words
from dracones.anatomy.repairs import Repairs
from dracones.anatomy.sensitivity import Sensitivity
from dracones.methods.learnt import Learnt
from dracones.metrics import Estimate

Level = Literal["good", "warning", "bad"]
Kind = Literal["inverted", "blind", "weak", "right"]

GOOD = 0.9
"""AUROC from which a rule is said to tell two sets apart."""
SMALL = 100
"""Images under which a set is called small."""


@dataclass(frozen=True)
class Verdict:
    """What to take away."""

    text: str
    level: Level
    points: tuple[str, ...]


def kind_of(area: Estimate) -> Kind:
    """What an AUROC of the plain likelihood, with its interval, says.

    >>> kind_of(Estimate(0.05, 0.03, 0.08)), kind_of(Estimate(0.45, 0.3, 0.6))
    ('inverted', 'blind')
    >>> kind_of(Estimate(0.8, 0.7, 0.85)), kind_of(Estimate(0.99, 0.98, 1.0))
    ('weak', 'right')
    """
    if area.high < 0.5:
        return "inverted"
    if area.low <= 0.5:
        return "blind"
    return "right" if area.value >= GOOD else "weak"


def judge(
    decomposition: Decomposition, repairs: Repairs, checks: Sensitivity | None = None, state: Learnt | None = None
) -> Verdict:
    """Put the numbers into words: the worst set first, the term that does it, the rule that repairs it.

    A density that has not learnt its images gets no verdict, whatever the numbers: they say nothing of a likelihood.
    """
    if state is not None and not state.passed:
        return Verdict(
            f"Not trained: judge nothing. This density has not learnt its normal images: {state.reasons[0]}.",
            "bad",
            (*(f"And {reason}." for reason in state.reasons[1:]), *state.cautions, *_cautions(repairs, checks)),
        )
    total = decomposition.total.auroc
    worst = min(total, key=lambda name: total[name].value)
    kind = kind_of(total[worst])
    level: Level = {"inverted": "bad", "blind": "warning", "weak": "warning", "right": "good"}[kind]  # type: ignore[assignment]
    points = [_about(name, decomposition, repairs) for name in total]
    points += _saved(repairs)
    points += () if state is None else state.cautions
    points += _cautions(repairs, checks)
    return Verdict(_headline(kind, worst, decomposition, repairs), level, tuple(points))


def _headline(kind: Kind, worst: str, decomposition: Decomposition, repairs: Repairs) -> str:
    area = decomposition.total.auroc[worst].value
    term = _cause(worst, decomposition)
    match kind:
        case "inverted":
            said = f"This likelihood prefers {worst} to its own normal images: AUROC {area:.2f}; the {term} does it"
        case "blind":
            said = f"This likelihood cannot tell {worst} from its own normal images: AUROC {area:.2f}"
        case "weak":
            said = f"This likelihood tells {worst} from its own normal images only in part: AUROC {area:.2f}"
        case "right":
            return (
                f"On these sets this likelihood can be trusted: AUROC {area:.2f} for {worst}, the lowest. "
                "On others it may still fail."
            )
    return f"{said}; {_advice(worst, repairs)}."


def _cause(other: str, decomposition: Decomposition) -> str:
    """The decisive term; of a volume that comes from the logit alone, as in a constant-volume flow, that."""
    decisive = decomposition.decisive(other)
    logit = next((term for term in decomposition.details if term.name == "input_log_det"), None)
    if decisive.name == "log_det" and logit is not None:
        own = decisive.gap[other].value - logit.gap[other].value
        if abs(own) < 0.05 * abs(decisive.gap[other].value):
            return "volume of the logit, the only volume that differs in this flow,"
    return words(decisive.name)


def _advice(other: str, repairs: Repairs) -> str:
    """Which rule to use for a set that the plain likelihood fails on."""
    judged, best = repairs.judged, repairs.best(other)
    own, found = repairs.auroc[judged][other], repairs.auroc[best][other]
    if own.value >= GOOD:
        advice = f"use the rule “{judged}”" if repairs.saved is None else f"“{judged}” repairs it"
        return f"{advice}: {own.value:.2f}"
    if repairs.better(other) is not None and found.value >= GOOD:
        return f"“{judged}” reaches {own.value:.2f}, “{best}” {found.value:.2f}, but chosen by looking at this set"
    if own.low > 0.5:
        return f"“{judged}” repairs it in part: {own.value:.2f}"
    return f"no rule on its statistics repairs it (“{judged}” {own.value:.2f}, best “{best}” {found.value:.2f})"


def _saved(repairs: Repairs) -> list[str]:
    """What the judged rule was fitted on, and which rule is better beyond doubt."""
    said = []
    if repairs.saved is not None and repairs.saved_fitted_on is not None:
        said.append(
            f"“{repairs.saved}” is the rule that scores, fitted on {repairs.saved_fitted_on:,} normal images of its "
            f"own fit; the other rules were fitted on {repairs.fitted_on:,} of the normal images given here."
        )
    for name in repairs.auroc[repairs.judged]:
        better = repairs.better(name)
        if better is not None:
            found, own = repairs.auroc[better][name], repairs.auroc[repairs.judged][name]
            said.append(
                f"On {name} “{better}” is better than “{repairs.judged}”: {found.value:.2f} ({found.low:.2f} to "
                f"{found.high:.2f}) against {own.value:.2f} ({own.low:.2f} to {own.high:.2f}); to take it is to have "
                "chosen by these images."
            )
    return said


def _about(name: str, decomposition: Decomposition, repairs: Repairs) -> str:
    """One sentence on one set."""
    area = decomposition.total.auroc[name]
    parts = ", ".join(f"{words(part.name)} {part.auroc[name].value:.2f}" for part in decomposition.parts)
    what = {
        "inverted": "preferred to normal images",
        "blind": "not told from normal images",
        "weak": "told apart in part",
        "right": "told apart",
    }[kind_of(area)]
    own = repairs.auroc[repairs.judged][name]
    return (
        f"{name} is {what} by the likelihood: AUROC {area.value:.2f} ({area.low:.2f} to {area.high:.2f}); its terms "
        f"alone: {parts}; “{repairs.judged}” {own.value:.2f} ({own.low:.2f} to {own.high:.2f}){_heard(name, repairs)}."
    )


def _heard(name: str, repairs: Repairs) -> str:
    """Which witness of the judged rule made its answer, where it has several."""
    return f", by its witness “{repairs.loudest[name]}” above all" if name in repairs.loudest else ""


def _cautions(repairs: Repairs, checks: Sensitivity | None) -> list[str]:
    said = []
    if checks is not None:
        liked = [check.name for check in checks.of("trivial") if check.auroc["against normal"].high < 0.5]
        if liked:
            said.append(f"Without any content, {_listed(liked)} images are likelier than normal ones.")
        leaky = [check for check in checks.of("filter") if abs(check.auroc["against itself"].value - 0.5) > 0.1]
        if leaky:
            worst = max(leaky, key=lambda check: abs(check.auroc["against itself"].value - 0.5))
            said.append(
                f"Resizing one side alone would fake a result: normal images shrunk and enlarged ({worst.name}) get an "
                f"AUROC of {worst.auroc['against itself'].value:.2f} against themselves."
            )
    small = {name: count for name, count in repairs.judged_on.items() if count < SMALL}
    if small:
        counts = _listed([f"{name} {count}" for name, count in small.items()])
        said.append(f"Small sets ({counts} images): go by the intervals, not by the values.")
    return said


def _listed(names: Sequence[str]) -> str:
    """Names as read aloud.

    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
