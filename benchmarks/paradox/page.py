"""Make the page from the results: `python -m benchmarks.paradox.page` writes `benchmarks/paradox/README.md`."""

import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.paradox import statements
from benchmarks.paradox.auto import BACKBONES, PIXELS, result_file
from benchmarks.paradox.evaluate import AGAINST, RESULTS, RULES
from benchmarks.records import read

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
MEAN_OF_PIXELS, MEAN_WITH_EMBEDDING = 0.93, 0.96
TARGETS = {
    ("FashionMNIST", "MNIST"): 0.99,
    ("FashionMNIST", "notMNIST"): 0.95,
    ("MNIST", "FashionMNIST"): 0.99,
    ("MNIST", "notMNIST"): 0.95,
    ("CIFAR-10", "CelebA"): 0.65,
    ("CIFAR-10", "textures"): 0.95,
    ("CIFAR-10", "synthetic house numbers"): 0.95,
    ("CIFAR-10", "noise"): 0.95,
    ("CIFAR-10", "constants"): 0.95,
    ("CelebA", "synthetic house numbers"): 0.95,
}
MAIN = {
    "FashionMNIST": "fashionmnist-glow",
    "MNIST": "mnist-glow",
    "CIFAR-10": "cifar10-glow",
    "CelebA": "celeba-glow",
}
DENSITIES = {
    "Glow, affine": "fashionmnist-glow",
    "Glow, constant volume": "fashionmnist-glow-constant-volume",
    "RealNVP, multi-scale": "fashionmnist-realnvp-multiscale",
    "RealNVP, 8 checkerboards": "fashionmnist-realnvp-checkerboard",
    "RealNVP, horizontal masks": "fashionmnist-realnvp-horizontal",
    "RealNVP, cycle masks": "fashionmnist-realnvp-cycle",
    "RealNVP, 8 checkerboards, bottleneck 10": "fashionmnist-realnvp-bottleneck10",
    "RealNVP, 8 checkerboards, bottleneck 30": "fashionmnist-realnvp-bottleneck30",
    "RealNVP, 8 checkerboards, bottleneck 100": "fashionmnist-realnvp-bottleneck100",
    "VAE": "fashionmnist-vae",
    "PixelCNN": "fashionmnist-pixelcnn",
}
COLOUR = {
    "CIFAR-10": {
        "Glow, affine": "cifar10-glow",
        "Glow, constant volume": "cifar10-glow-constant-volume",
        "VAE": "cifar10-vae",
        "PixelCNN": "cifar10-pixelcnn",
    },
    "CelebA": {
        "Glow, affine": "celeba-glow",
        "RealNVP, 8 checkerboards": "celeba-realnvp-checkerboard",
        "RealNVP, horizontal masks": "celeba-realnvp-horizontal",
        "RealNVP, cycle masks": "celeba-realnvp-cycle",
    },
}

PICTURES = {
    "histograms": "log p of the variants' test sets, first seed; the outermost bins hold all beyond.",
    "auroc": "AUROC of the likelihood of every variant.",
    "couplings-checkerboard": "−t, s and activations under checkerboards; one scale a coupling, from the normal image.",
    "couplings-horizontal": "The same under horizontal masks.",
    "couplings-cycle": "The same under cycle masks.",
    "latents-checkerboard": "Latents under checkerboards, −2 to 2: one draw, mean of 40, BatchNorm in train mode.",
    "latents-horizontal": "Latents under horizontal masks.",
    "latents-cycle": "Latents under cycle masks.",
    "graying": "Bits/dim as contrast shrinks towards mid-gray and towards the data's mean.",
    "shrinking": "How far from the mean image the second-order expansion holds.",
    "gaps": "Measured and predicted gaps; linear up to a tenth of a bit, logarithmic beyond.",
    "graying-Glow": "Glow at 28x28: bits/dim as contrast shrinks.",
    "shrinking-Glow": "Glow: how far the expansion holds.",
    "gaps-Glow": "Glow: measured and predicted gaps.",
    "graying-constant-volume-Glow": "Constant-volume Glow at 28x28: bits/dim as contrast shrinks.",
    "shrinking-constant-volume-Glow": "Constant-volume Glow: how far the expansion holds.",
    "gaps-constant-volume-Glow": "Constant-volume Glow: measured and predicted gaps.",
    "graying-constant-volume-Glow-on-CIFAR-10": "Constant-volume Glow on CIFAR-10: bits/dim as contrast shrinks.",
    "shrinking-constant-volume-Glow-on-CIFAR-10": "The same Glow: how far the expansion holds.",
    "gaps-constant-volume-Glow-on-CIFAR-10": "The same Glow: measured and predicted gaps.",
}

Runs = list[dict[str, Any]]


def runs_of(name: str, results: Path) -> Runs:
    """The results of all seeds of a run."""
    return [read(file) for file in sorted(results.glob(f"{name}-seed*.json"))]


def cell(runs: Runs, title: str, other: str) -> str:
    """AUROC: mean and spread over seeds, or the value of one seed."""
    values = [run["auroc"][title][other]["value"] for run in runs if other in run["auroc"].get(title, {})]
    if not values:
        return ""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


def table(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table; rows whose cells but the first are all empty are left out."""
    kept = [row for row in rows if any(row[1:])]
    lines = [head, ["---"] * len(head), *kept]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rules_section(results: Path) -> str:
    """Every rule on every pair of the Glows."""
    parts = []
    for normal, name in MAIN.items():
        runs = runs_of(name, results)
        if not runs:
            continue
        others = list(AGAINST[normal])
        bits = ", ".join(f"{key} {value:.2f}" for key, value in runs[0]["bits_per_dim"].items() if key != "train")
        model = runs[0]["model"]
        cost = statistics.mean(run["model"]["cpu_seconds"] for run in runs)
        parts.append(
            f"### Trained on {normal}\n\n{len(runs)} seed{'s' if len(runs) > 1 else ''}; {model['parameters']:,}"
            f" parameters; {model['images_seen']:,} images seen in {cost:.0f} CPU seconds. Bits per"
            f" dimension: {bits}.\n\n"
        )
        rows = [[title, *(cell(runs, title, other) for other in others)] for title, _, _ in RULES]
        parts.append(table(["rule", *others], rows))
        parts.append("\n")
    return "".join(parts)


def autos(results: Path) -> dict[str, dict[str, Any]]:
    """What was measured of `auto`, by normal set; a set whose Glow nobody has trained is left out."""
    files = {normal: result_file(normal, results) for normal in AGAINST}
    return {normal: read(file)["auroc"] for normal, file in files.items() if file.exists()}


def targets_section(results: Path) -> str:
    """Which targets `auto` meets, and how far it falls below the best of its witnesses."""
    found, rows = autos(results), []
    merged = [f"auto, pixels and {title}" for title in BACKBONES]
    for normal, table_of in found.items():
        for other in AGAINST[normal]:
            cells = {title: row[other] for title, row in table_of.items()}
            pixels = cells[PIXELS]
            best = max(cell["value"] for title, cell in cells.items() if title.startswith("witness: "))
            target = TARGETS.get((normal, other))
            verdict = "" if target is None else ("met" if pixels["value"] >= target else "**missed**")
            rows.append(
                [
                    f"{normal} → {other}",
                    f"{pixels['value']:.3f} [{pixels['low']:.3f}, {pixels['high']:.3f}]",
                    f"{pixels['value'] - best:+.3f}",
                    *(f"{cells[title]['value']:.3f}" for title in merged),
                    "" if target is None else f"{target:.2f}",
                    verdict,
                ]
            )
    head = ["pair", "`auto`, pixels [95 %]", "less the best witness", *(f"with {title}" for title in BACKBONES)]
    return table([*head, "target", ""], rows) + "\n" + "\n".join(_sums(found, merged)) + "\n"


def _sums(found: dict[str, dict[str, Any]], merged: list[str]) -> list[str]:
    """The means over all pairs, or which pairs lack for them."""
    count, pairs = sum(map(len, AGAINST.values())), sum(len(AGAINST[normal]) for normal in found)
    if not found:
        return ["Not measured since the rule changed: `python -m benchmarks.paradox.auto` measures it."]
    said = []
    for title in (PIXELS, *merged):
        wanted = MEAN_OF_PIXELS if title == PIXELS else MEAN_WITH_EMBEDDING
        values = [row[title][other]["value"] for normal, row in found.items() for other in AGAINST[normal]]
        mean = statistics.mean(values)
        verdict = "" if pairs < count else (", met" if mean >= wanted else ", **missed**")
        said.append(f"- {title}: mean {mean:.3f} over {pairs} of {count} pairs (target over all: {wanted}){verdict}")
    lacking = [normal for normal in AGAINST if normal not in found]
    if lacking:
        said.append(f"- Not measured, as its Glow was not trained when these were: {', '.join(lacking)}.")
    return said


def witnesses_section(results: Path) -> str:
    """Each witness alone, the merge and other merges, a table a normal set."""
    parts = []
    for normal, found in autos(results).items():
        others = list(AGAINST[normal])
        rows = [[title, *(f"{row[other]['value']:.3f}" for other in others)] for title, row in found.items()]
        parts.append(f"Trained on {normal}:\n\n" + table(["", *others], rows))
    return "\n".join(parts)


def alone_section(results: Path) -> str:
    """The three statistics that tell most by themselves, per pair."""
    rows = []
    for normal, name in MAIN.items():
        for run in runs_of(name, results)[:1]:
            for other, found in run.get("auroc_of_each_statistic_low", {}).items():
                best = sorted(found, key=lambda each: -abs(found[each] - 0.5))[:3]
                told = ", ".join(f"`{each}` {found[each]:.2f}" for each in best)
                rows.append([f"{normal} → {other}", told])
    return table(["pair", "statistic, AUROC with low as anomalous"], rows)


def densities_section(results: Path) -> str:
    """Other densities on FashionMNIST."""
    rows = []
    for title, name in DENSITIES.items():
        runs = runs_of(name, results)
        if runs:
            bits = statistics.mean(run["bits_per_dim"]["FashionMNIST"] for run in runs)
            inverted = statistics.mean(run["bits_per_dim"]["MNIST"] for run in runs)
            model = runs[0]["model"]
            numbers = [f"{model['parameters']:,}", f"{model['cpu_seconds']:.0f}", f"{bits:.2f}", f"{inverted:.2f}"]
            scores = [
                cell(runs, rule, other)
                for other in ("MNIST", "notMNIST")
                for rule in ("likelihood", "latent term", "volume term", "likelihood regret")
                if not (rule == "likelihood regret" and other == "notMNIST")
            ]
            images = runs[0].get("test_images_at_most")
            rows.append([title, *numbers, f"{images:,}" if images else "all", *scores])
    head = ["density", "parameters", "CPU s", "bits/dim", "of MNIST", "test images"]
    head += ["MNIST: likelihood", "latent", "volume", "regret"]
    head += ["notMNIST: likelihood", "latent", "volume"]
    return table(head, rows)


def colour_section(results: Path) -> str:
    """Other densities on colour images at 32x32: AUROC of the likelihood."""
    parts = []
    for normal, named in COLOUR.items():
        others, rows = AGAINST[normal], []
        for title, name in named.items():
            runs = runs_of(name, results)
            if runs:
                model, images = runs[0]["model"], runs[0].get("test_images_at_most")
                bits = statistics.mean(run["bits_per_dim"][normal] for run in runs)
                numbers = [f"{model['parameters']:,}", f"{model['cpu_seconds']:.0f}", f"{bits:.2f}"]
                scores = [cell(runs, "likelihood", other) for other in others]
                rows.append([title, *numbers, f"{images:,}" if images else "all", *scores])
        parts.append(
            f"Trained on {normal}:\n\n" + table(["density", "parameters", "CPU s", "bits/dim", "images", *others], rows)
        )
    return "\n".join(parts)


def ensembles_section(results: Path) -> str:
    """One to five Glows that differ in their seed."""
    file = results / "ensembles.json"
    if not file.exists():
        return "Not measured: `python -m benchmarks.paradox.ensembles`."
    found = read(file)
    others, rows = AGAINST[found["trained_on"]], []
    for title, sizes in found["auroc"].items():
        for size, row in sizes.items():
            cells = [
                f"{row[other]['mean']:.3f} ({row[other]['least']:.3f} to {row[other]['most']:.3f})" for other in others
            ]
            rows.append([title, size, *cells])
    return table(["score", "members", *others], rows)


def embeddings_section(results: Path) -> str:
    """Flows on embeddings."""
    parts: list[str] = []
    for file in sorted(results.glob("embeddings-*.json")):
        result = read(file)
        others = list(AGAINST[result["trained_on"]])
        own = {title: row for title, row in result["auroc"].items() if "on pixels" not in title}
        rows = [[title, *(f"{row[other]['value']:.3f}" for other in others)] for title, row in own.items()]
        parts.append(
            f"Trained on {result['trained_on']} ({result['training']['images']:,} images,"
            f" {result['cpu_seconds']:.0f} CPU seconds in all; {result['backbone']}; rules fitted on"
            f" {result['rules_fitted_on']}; at most {result['test_images_at_most']:,} test images a set):\n\n"
        )
        parts.append(table(["rule", *others], rows) + "\n")
    return "".join(parts)


def resizing_section(results: Path) -> str:
    """The filter alone, and what it does to the mean over all pairs."""
    file = results / "resizing.json"
    if not file.exists():
        return ""
    found = read(file)["table"]
    rows = [
        [f"{name}, {resizing}", *(f"{value:.3f}" for value in cells.values())]
        for name, by_filter in found.items()
        for resizing, cells in by_filter.items()
    ]
    return table(["set, filter", "bits/dim", "likelihood", "complexity, WebP", "`auto` of three witnesses"], rows)


def statements_section(results: Path) -> str:
    """Each figure of the papers beside its statement."""
    text = table(["figure", "the paper says", "here", ""], [list(row) for row in statements.rows(results)])
    shown = [name for name in PICTURES if (HERE / "figures" / f"{name}.png").exists()]
    return text + "".join(f"\n![{PICTURES[name]}](figures/{name}.png)\n\n{PICTURES[name]}\n" for name in shown)


def main() -> None:
    results = RESULTS
    text = (Path(__file__).parent / "page.md").read_text()
    sections = {
        "STATEMENTS": statements_section,
        "TARGETS": targets_section,
        "WITNESSES": witnesses_section,
        "RULES": rules_section,
        "ALONE": alone_section,
        "DENSITIES": densities_section,
        "COLOUR": colour_section,
        "ENSEMBLES": ensembles_section,
        "EMBEDDINGS": embeddings_section,
        "RESIZING": resizing_section,
    }
    for name, section in sections.items():
        text = text.replace(f"<!-- {name} -->", section(results).strip())
    commits = sorted({read(file).get("commit", "") for file in results.glob("*.json")} - {""})
    PAGE.write_text(
        text.replace("<!-- COMMITS -->", re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", ", ".join(commits)))
    )


if __name__ == "__main__":
    main()
