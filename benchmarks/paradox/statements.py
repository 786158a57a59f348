"""Each figure of the two papers beside its statement, with what is measured here: seen, or not seen and why."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.records import read

Row = tuple[str, str, str, str]
_LEARNT = 6.0
"""Bits per dimension of photographs above which a density has hardly begun; knowing nothing needs 8."""
_UNTRAINED = "**not judged**, because not all have learnt their images"


def rows(results: Path) -> list[Row]:
    """(figure, the paper's statement, here, verdict) of both papers."""
    bias = results / "inductive-bias.json"
    shrunk = [read(file)["densities"] for file in sorted(results.glob("second-order-*.json"), reverse=True)]
    return [
        *_nalisnick(results),
        *(row for densities in shrunk for title, found in densities.items() for row in _shrunk(found, title)),
        *_kirichenko(results),
        *(_variants(read(bias)) if bias.exists() else []),
    ]


def _nalisnick(results: Path) -> list[Row]:
    who = "Nalisnick"
    inverted = {
        "Glow": _likelihood(results, "fashionmnist-glow", "MNIST"),
        "constant-volume Glow": _likelihood(results, "fashionmnist-glow-constant-volume", "MNIST"),
        "VAE": _likelihood(results, "fashionmnist-vae", "MNIST"),
        "PixelCNN": _likelihood(results, "fashionmnist-pixelcnn", "MNIST"),
    }
    colour = _likelihood(results, "cifar10-glow", "synthetic house numbers")
    constant, noise = (_likelihood(results, "cifar10-glow", name) for name in ("constants", "noise"))
    file = results / "ensembles.json"
    ensembles = read(file) if file.exists() else None
    return [
        (
            f"{who}, fig. 1 and 3",
            "MNIST is likelier than FashionMNIST under Glow, a VAE and a PixelCNN, also at constant volume",
            "AUROC " + ", ".join(f"{name} {value:.3f}" for name, value in inverted.items()),
            _seen(all(value < 0.5 for value in inverted.values())),
        ),
        (
            f"{who}, fig. 1",
            "SVHN is likelier than CIFAR-10",
            f"AUROC {colour:.3f} for rendered house numbers",
            f"{_seen(colour < 0.5)} on a stand-in: SVHN was not to be had",
        ),
        (
            f"{who}, appendix",
            "a constant image is likelier than any, noise less likely",
            f"AUROC constants {constant:.3f}, noise {noise:.3f}",
            _seen(constant < 0.5 < noise),
        ),
        *([_of_ensembles(ensembles)] if ensembles else []),
        *_colour(results),
    ]


def _of_ensembles(found: dict[str, Any]) -> Row:
    count = str(len(found["members"]))
    told = {title: sizes[count]["MNIST"] for title, sizes in found["auroc"].items()}
    return (
        "Nalisnick, section 5",
        "an ensemble of Glows does not repair it",
        f"AUROC of MNIST, {count} seeds: "
        + ", ".join(
            f"{title} {cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for title, cell in told.items()
        ),
        _seen(all(cell["high"] < 0.5 for cell in told.values())),
    )


def _colour(results: Path) -> list[Row]:
    """CIFAR-10 under the other densities, and Kirichenko's masks on CelebA; what is trained of them."""
    house, rows = "synthetic house numbers", []
    densities = {"constant-volume Glow": "glow-constant-volume", "VAE": "vae", "PixelCNN": "pixelcnn"}
    found = {
        title: f"cifar10-{name}" for title, name in densities.items() if any(results.glob(f"cifar10-{name}-seed*"))
    }
    if found:
        values = {title: _likelihood(results, name, house) for title, name in found.items()}
        rows.append(
            (
                "Nalisnick, fig. 2 and 3",
                "SVHN is likelier than CIFAR-10 under the other densities too",
                "AUROC " + ", ".join(f"{title} {value:.3f}" for title, value in values.items()),
                f"{_seen(all(value < 0.5 for value in values.values()))} on a stand-in",
            )
        )
    masks = [
        name for name in ("checkerboard", "horizontal", "cycle") if any(results.glob(f"celeba-realnvp-{name}-seed*"))
    ]
    bits = [_bits(results, f"celeba-realnvp-{name}", "CelebA") for name in masks]
    if len(masks) > 1:
        for other in ("CIFAR-10", house):
            each = [_likelihood(results, f"celeba-realnvp-{name}", other) for name in masks]
            told = ", ".join(
                f"{name} {value:.3f} ({need:.2f} bits/dim)" for name, value, need in zip(masks, each, bits, strict=True)
            )
            rows.append(
                (
                    "Kirichenko, section 6",
                    "the other sets get less likely from checkerboard to horizontal to cycle, CelebA at 32x32",
                    f"AUROC of {other}: {told}",
                    "**not judged**, because not all have learnt their images"
                    if max(bits) > _LEARNT
                    else _seen(sorted(each) == each),
                )
            )
    return rows


def _kirichenko(results: Path) -> list[Row]:
    pixels, features = [], []
    for file in sorted(results.glob("embeddings-*.json")):
        found = read(file)
        name = f"{file.stem.removeprefix('embeddings-')}-glow"
        for other, cell in found["auroc"]["likelihood"].items():
            features.append(cell["value"])
            pixels.append(_likelihood(results, name, other))
    better = sum(one >= other for one, other in zip(features, pixels, strict=True))
    return [
        (
            "Kirichenko, section 8",
            "on embeddings of ImageNet features the likelihood finds what it misses on pixels",
            f"mean AUROC {statistics.mean(features):.3f} against {statistics.mean(pixels):.3f}, as good or better on "
            f"{better} of {len(features)} pairs (ResNet-18)",
            _seen(better >= len(features) - 1),
        )
    ]


def _variants(found: dict[str, Any]) -> list[Row]:
    who, seeds = "Kirichenko", len({run["seed"] for run in found["finding"]["runs"]})
    trained = f"{seeds} seed{'s' if seeds > 1 else ''}, 14x14, {found['training']['max_steps']} steps"
    statement = {
        "checkerboard": "the other sets get less likely from checkerboard to horizontal to cycle",
        "l =": "the other sets get less likely with smaller l",
    }
    steps = found["training"]["max_steps"]
    short = f"the model is small (a guess: 8 couplings, {steps} steps to where held-out images level off)"
    rows: list[Row] = []
    for words in found["words"]:
        told, verdict = words.rstrip(".").split("; it ", 1)
        chain = "l =" if "l =" in told else "checkerboard"
        label = verdict.rsplit(": ", 1)[1]
        lacking = [name for name in found["not_trained"] if (name[:3] == "l =") == (chain == "l =")]
        among = f" among those trained; {', '.join(lacking)} not trained" if lacking else ""
        rows.append((f"{who}, section 6", statement[chain], f"{told} ({trained})", f"**{label}**{among}"))
    if found["not_trained"]:
        rows.append((f"{who}, section 6", "", f"not trained: {', '.join(found['not_trained'])}", "**not seen**: cut"))
    for name, gain in found["sharpening_of_minus_t"].items():
        if name == "horizontal":
            normal = gain["normal"]
            rows.append(
                (
                    f"{who}, fig. 5",
                    "under horizontal masks −t sharpens from the first to the later couplings",
                    f"sharpness {normal['value']:+.3f} [{normal['low']:+.3f}, {normal['high']:+.3f}] on FashionMNIST",
                    "**seen**" if normal["low"] > 0 else f"**not seen**, because {short}",
                )
            )
    return [*rows, *_shrunk(found, "the checkerboard RealNVP at 14x14")]


def _shrunk(found: dict[str, Any], density: str) -> list[Row]:
    """Graying and the second order of one density."""
    rows: list[Row] = []
    for words in found["graying"]["words"]:
        rows.append(("Nalisnick, fig. 6", "paler images are likelier", f"{words} ({density})", _seen("gain" in words)))
    for words in found["second_order"]["words"]:
        holds = "explains nothing" not in words
        verdict = _seen("right sign" in words) if holds else "**not seen**, because the expansion does not hold there"
        rows.append(
            ("Nalisnick, eq. 5", "lower variance about the same mean predicts it", f"{words} ({density})", verdict)
        )
    return rows


def _likelihood(results: Path, name: str, other: str, rule: str = "likelihood") -> float:
    """Mean AUROC of a rule over the seeds that have it."""
    found = [read(file)["auroc"].get(rule, {}).get(other) for file in sorted(results.glob(f"{name}-seed*.json"))]
    return statistics.mean(each["value"] for each in found if each)


def _bits(results: Path, name: str, images: str) -> float:
    """Mean bits per dimension of a test set over seeds."""
    return statistics.mean(read(file)["bits_per_dim"][images] for file in sorted(results.glob(f"{name}-seed*.json")))


def _seen(is_so: bool) -> str:
    return "**seen**" if is_so else "**not seen**"
