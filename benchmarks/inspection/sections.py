"""Sections of the page with records of their own: FastFlow's forms, the ensemble's rivals and cost, image scores."""

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
    lines = [
        "## What the ensemble costs\n",
        f"`python -m benchmarks.inspection.cost`: CPU seconds, medians of {records[0]['rounds']} interleaved rounds, "
        "no cache; each witness alone has the form that it has in the ensemble. Asked: at most 1.3 of the dearest.\n",
    ]
    for found in records:
        ratios = found["ensemble_to_dearest"]
        spent = found["cpu_seconds"].items()
        lines += [
            f"{found['set']}, {found['backbone']}, {found['train_images']} images fitted and {found['test_images']} "
            f"scored ({found['machine'].split(',')[0]}): the ensemble takes, beside the dearest witness alone, "
            f"{ratios['fit']} times to fit, {ratios['score']} to score, {found['ensemble_to_dearest_both']} in all.\n",
            "| method | fit s | score s |",
            "|---|---|---|",
            *(_row([side, f"{seconds['fit']:.1f}", f"{seconds['score']:.1f}"]) for side, seconds in spent),
            "",
        ]
    return lines


def quality(records: list[Record]) -> list[str]:
    """How soon each side is as good as it gets, and ours as good as the peer."""
    lines = [
        "## Time to quality\n",
        "`python -m benchmarks.inspection.quality`: all test images, one thread, ResNet-18; the peer's FastFlow, ours "
        "with its defaults, and the default method, each number of epochs a run of its own. Asked: that the peer's "
        "last AUROC is reached in a tenth of its own time.\n",
    ]
    for found in records:
        theirs = found["cpu_seconds_to_final_of_peer"]
        told = ", ".join(
            f"{side} {'never' if seconds is None else f'{seconds:.0f} s'}" for side, seconds in sorted(theirs.items())
        )
        lines += [
            f"{found['set']}, {found['train_images']} good images, {found['peer'].replace('==', ' ')} "
            f"({found['machine'].split(',')[0]}). CPU seconds until the peer's last AUROC is reached: {told}.\n",
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


def top_share(records: list[Record]) -> list[str]:
    """What share of a map its score should average, by made defects."""
    rows = [row for found in records for row in found["rows"]]
    ways = list(rows[0]["auroc_of_made_defects"])
    titles = [f"{float(way):.2%}" if way[0] == "0" else way for way in ways]
    return [
        "## What share of a map its score averages\n",
        "`python -m benchmarks.inspection.top_share METHOD SET`: AUROC of made defects, sizes even on a logarithmic "
        "scale, against the same good images without one, by the share of hottest pixels that the score averages. "
        "No image of these was learnt from, and no test image was read.\n",
        "| set | method | options | " + " | ".join(titles) + " |",
        "|---|---|---|" + "---|" * len(ways),
        *(
            _row(
                [
                    row["set"],
                    row["method"],
                    ", ".join(f"{key} {value}" for key, value in row["options"].items()) or "as run above",
                    *(_short(row["auroc_of_made_defects"][way]) for way in ways),
                ]
            )
            for row in rows
        ),
        "",
    ]


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
