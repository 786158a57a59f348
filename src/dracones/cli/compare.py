"""`dracones compare`: many guards of one classifier over one pass of its features, one table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.options import AsJson, Threads, parse_settings, use_threads
from dracones.cli.output import emit, table, tell

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr_at_tpr95", "detection_error")


def compare(
    classifier: Annotated[
        str, typer.Option("--classifier", help="timm name, module:function, file.py:function, or torch.export file.")
    ],
    train: Annotated[str, typer.Option("--train", metavar="DATA", help="Labelled normal images to fit on.")],
    normal: Annotated[
        str, typer.Option("--normal", metavar="DATA", help="Normal images the classifier was not trained on.")
    ],
    near: Annotated[
        list[str] | None,
        typer.Option("--near", metavar="NAME=DATA", help="Anomalous images much like the normal ones."),
    ] = None,
    far: Annotated[
        list[str] | None, typer.Option("--far", metavar="NAME=DATA", help="Other anomalous images; repeatable.")
    ] = None,
    methods: Annotated[str, typer.Option("--methods", help="all, or names with commas between.")] = "all",
    weights: Annotated[
        Path | None, typer.Option("--classifier-weights", help="Local state dict, safetensors or torch.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of all, key=value, or of one method, method.key=value; repeatable."),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help=f"Shown in the table: {', '.join(METRICS)}.")] = "auroc",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file with every metric.")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare out-of-distribution scores of one classifier on near and far anomalous sets.

    Every image goes through the classifier once for all methods; ODIN runs it again.
    """
    use_threads(threads)
    if metric not in METRICS:
        raise ValueError(f"--metric is one of {', '.join(METRICS)}, got {metric!r}")
    sets = {"near": _named(near or [], "--near"), "far": _named(far or [], "--far")}
    from dracones.detectors.comparison import classifier_methods
    from dracones.detectors.comparison import compare as run
    from dracones.training import RichProgress

    shared, options = _settings(settings or [], classifier_methods())
    if weights is not None:
        shared["classifier_weights"] = str(weights)
    chosen: Any = "all" if methods == "all" else [name.strip() for name in methods.split(",") if name.strip()]
    found = run(
        classifier,
        train=train,
        normal=normal,
        near=sets["near"],
        far=sets["far"],
        methods=chosen,
        options=options,
        progress=RichProgress(),
        **shared,
    )
    result = found.to_json()
    if output is not None:
        import json

        from dracones.files.atomic import write_text

        write_text(output, json.dumps(result, indent=1, allow_nan=False) + "\n")
        tell(f"wrote {output}")
    if as_json:
        emit(result)
        return
    _show(found, metric)


def _named(texts: list[str], option: str) -> dict[str, str]:
    """``name=data`` pairs.

    >>> _named(["svhn=/data/svhn"], "--far")
    {'svhn': '/data/svhn'}
    """
    sets: dict[str, str] = {}
    for text in texts:
        name, equals, data = text.partition("=")
        if not equals or not name or not data:
            raise ValueError(f"{option} takes NAME=DATA, got {text!r}; for example {option} textures=photos/textures")
        if name in sets:
            raise ValueError(f"{option} names {name!r} twice")
        sets[name] = data
    return sets


def _settings(texts: list[str], methods: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options of all methods, and of single ones.

    >>> _settings(["mean=[0.5]", "knn.k=10"], ("knn", "msp"))
    ({'mean': [0.5]}, {'knn': {'k': 10}})
    """
    shared: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings(texts).items():
        method, dot, option = key.partition(".")
        if dot and method in methods:
            options.setdefault(method, {})[option] = value
        else:
            shared[key] = value
    return shared, options


def _show(found: Any, metric: str) -> None:
    """A line a method, a column a set with its 95 % interval, and the mean of each group."""
    columns = ["method"]
    sets = [(group, name) for group in ("near", "far") for name in dict.fromkeys(
        row.set for row in found.rows if row.group == group
    )]  # fmt: skip
    groups = list(dict.fromkeys(group for group, _ in sets))
    columns += [f"{group} mean" for group in groups] + [f"{name} ({group})" for group, name in sets]
    cells = {(row.method, row.set): row.metrics[metric] for row in found.rows}
    rows = [
        [method]
        + [found.mean(metric, method, group) for group in groups]
        + [_with_interval(cells[method, name]) for _, name in sets]
        for method in found.methods
    ]
    table(f"{metric}, 95 % interval in brackets; best mean AUROC first", columns, rows)
    for name, share in found.accuracy.items():
        tell(f"the classifier is right on {share:.1%} of the {found.counts[name]} labelled images of --{name}")
    if found.tuning is not None:
        tell(f"odin: {found.tuning}")
    for name, reason in found.failed.items():
        tell(f"{name} left out: {reason}")


def _with_interval(estimate: Any) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
