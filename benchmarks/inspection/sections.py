"""Sections of the page with records of their own: FastFlow's forms, the ensemble against single methods, its cost."""

from typing import Any

Record = dict[str, Any]


def forms(records: list[Record]) -> list[str]:
    """FastFlow's forms by held-out likelihood and test images, a table a set."""
    lines = [
        "## Forms of FastFlow\n",
        "`python -m benchmarks.inspection.flow_forms SET`: one level of ResNet-18, few steps, few images. *Held out*: "
        "negative log-density of good images that no form has seen, nats a feature value less a constant, "
        "normalisation included, smaller is better; *hottest at border*: share of them whose hottest position is an "
        "outermost one. AUROC of test images (mean of the hottest .3 %) for the record.\n",
    ]
    for found in records:
        lines += [
            f"{found['set']}: {found['train_images']} images train, {found['held_out_images']} are held out; level "
            f"{found['level']}, {found['steps']} steps, {found['epochs']} epochs.\n",
            "| normalisation | padding | held out | at the border | inside | heat | hottest at border | image AUROC |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in found["rows"]:
            for heat in ("probability", "likelihood"):
                cells = [
                    row["normalisation"],
                    row["padding"],
                    *(f"{row[f'held_out_nll{part}']:.3f}" for part in ("", "_at_border", "_inside")),
                    heat,
                    f"{row['hottest_at_border'][heat]:.0%}",
                    _short(row["image_auroc"][heat]) if row["image_auroc"] else "",
                ]
                lines.append(_row(cells))
        lines.append("")
    return lines


def against_single(records: list[Record]) -> list[str]:
    """The ensemble against each single method, on the same test images."""
    lines = [
        "## The ensemble against single methods, paired\n",
        "`python -m benchmarks.inspection.paired`: means over the same seeds, the difference with the 95 % interval "
        f"of a bootstrap over test images ({records[0]['resamples']} draws) and its two-sided p. A *witness* is the "
        "single method within the ensemble: the same good images, the same features (*whole*: the "
        "Gaussian of `embedding_flow`; *place*: `padim`; *patch*: `patchcore` with 2 %).\n",
        "| set | backbone | seeds | single method | ensemble | single | difference | 95 % | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for found in records for row in found["rows"]):
        cells = [
            row["set"],
            row["backbone"],
            str(len(row["seeds"])),
            row["rival"],
            _short(row["ensemble_auroc"]),
            _short(row["rival_auroc"]),
            f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['p']:.3f}",
        ]
        lines.append(_row(cells))
    return [*lines, ""]


def cost(records: list[Record]) -> list[str]:
    """CPU seconds of the ensemble and of each witness alone."""
    lines = []
    for found in records:
        ratios = found["ensemble_to_dearest"]
        spent = found["cpu_seconds"].items()
        lines += [
            "## What the ensemble costs\n",
            f"`python -m benchmarks.inspection.cost`: CPU seconds, medians of {found['rounds']} interleaved rounds, "
            f"{found['train_images']} images fitted and {found['test_images']} scored ({found['set']}, "
            f"{found['backbone']}), no cache. Ensemble to the dearest witness alone: fit {ratios['fit']}, score "
            f"{ratios['score']}, both {found['ensemble_to_dearest_both']} (asked: at most 1.3).\n",
            "| method | fit s | score s |",
            "|---|---|---|",
            *(_row([side, f"{seconds['fit']:.1f}", f"{seconds['score']:.1f}"]) for side, seconds in spent),
            "",
        ]
    return lines


def quality(records: list[Record]) -> list[str]:
    """How soon each side is as good as it gets, and ours as good as the peer."""
    lines = []
    for found in records:
        peer = found["peer"].replace("==", " ")
        theirs = found["cpu_seconds_to_final_of_peer"]
        told = ", ".join(
            f"{side} {'never' if seconds is None else f'{seconds:.0f} s'}" for side, seconds in sorted(theirs.items())
        )
        lines += [
            "## Time to quality\n",
            f"`python -m benchmarks.inspection.quality`: {found['train_images']} good images of {found['set']}, all "
            f"test images, one thread, ResNet-18; {peer}'s FastFlow, ours with its defaults, and the default method. "
            f"CPU seconds until the peer's last AUROC is reached (asked: a tenth of its own): {told}.\n",
            "| side | epochs | fit CPU s | image AUROC |",
            "|---|---|---|---|",
            *(
                _row(
                    [
                        row["side"],
                        str(row["epochs"] or "none"),
                        f"{row['fit_cpu_seconds']:.0f}",
                        _short(row["image_auroc"]),
                    ]
                )
                for row in found["rows"]
            ),
            "",
        ]
    return lines


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
