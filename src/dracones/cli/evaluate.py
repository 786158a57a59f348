"""`dracones evaluate`: every metric, with its interval, for normal against anomalous images."""

from pathlib import Path
from typing import Any

from dracones.cli.models import load_model, open_data, open_test, read_groups, use_threads_for
from dracones.cli.options import (
    Anomalous,
    AsJson,
    BatchSize,
    Category,
    Classifier,
    Device,
    Group,
    Masks,
    Model,
    NoMasks,
    Normal,
    Threads,
)
from dracones.cli.output import emit, report_skipped, skipped_records, table, tell


def evaluate(
    model: Model,
    normal: Normal = None,
    anomalous: Anomalous = None,
    masks: Masks = None,
    no_masks: NoMasks = False,
    category: Category = None,
    group: Group = None,
    batch_size: BatchSize = 32,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Judge MODEL on images it was not fitted on; with masks, judge its heat maps too."""
    use_threads_for(model, threads)
    from dracones.detectors.evaluation import evaluate as judge
    from dracones.training import RichProgress

    detector = load_model(model, device=device, classifier=classifier)
    normal_images, anomalous_images = open_sides(model, normal, anomalous, masks, category, no_masks=no_masks)
    found = judge(
        detector,
        normal_images,
        anomalous_images,
        groups=read_groups(group),
        batch_size=batch_size,
        progress=RichProgress(),
    )
    skipped = [*found.normal.errors, *found.anomalous.errors]
    if as_json:
        emit({**found.to_json(), "skipped": skipped_records(skipped)})
        return
    show(found)
    report_skipped(skipped)


def open_sides(
    model: Path,
    normal: str | None,
    anomalous: str | None,
    masks: Path | None,
    category: Path | None,
    *,
    no_masks: bool = False,
) -> tuple[Any, Any]:
    """The two sides of a comparison, from options or from a whole category; as the model reads images.

    Raises:
        ValueError: options that contradict each other, or a side that is missing.
    """
    if masks is not None and no_masks:
        raise ValueError("--masks and --no-masks contradict each other; give one of them")
    if category is not None:
        if normal or anomalous or masks:
            raise ValueError("--category names both sides and the masks; leave out --normal, --anomalous and --masks")
        test, labels = open_test(model, category)
        test = test.without_masks() if no_masks else test
        return test.subset(labels == 0), test.subset(labels == 1)
    if normal is None or anomalous is None:
        raise ValueError("give --normal DATA and --anomalous DATA, or --category DIR")
    anomalous_images = open_data(model, anomalous, masks=masks)
    return open_data(model, normal), anomalous_images.without_masks() if no_masks else anomalous_images


def show(found: Any) -> None:
    """Print an evaluation as tables: value, low, high of each metric."""
    counts = found.counts
    if found.alarms is not None:
        shares = {"normal: false alarms": found.alarms["normal"], "anomalous: found": found.alarms["anomalous"]}
        shares |= {f"  {kind}": alarms for kind, alarms in found.kinds.items()}
        rows = [
            [what, f"{a.count} of {a.total}", a.share.value, a.share.low, a.share.high] for what, a in shares.items()
        ]
        if found.outlined is not None:
            shares["normal: with an outline"] = found.outlined.normal
            shares["anomalous: with an outline"] = found.outlined.anomalous
        table("called anomalous at the threshold", ["images", "count", "share", "95 % from", "to"], rows)
    if found.groups:
        promised = next(iter(found.groups.values())).rate
        rows = [
            [name, f"{one.alarms} of {one.images}", one.realised.value, one.realised.low, one.realised.high, one.state]
            for name, one in found.groups.items()
        ]
        columns = ["group", "false alarms", "share", "95 % from", "to", "promise"]
        table(f"false alarms of each group, of which {promised:.2%} are promised", columns, rows)
    columns = ["metric", "value", "95 % from", "to"]
    for level, metrics in (("image", found.image), ("pixel", found.pixel)):
        if metrics is not None:
            rows = [[name, m["value"], m["low"], m["high"]] for name, m in metrics.items()]
            table(f"{level} level: {counts['normal']} normal, {counts['anomalous']} anomalous", columns, rows)
    promises = [found.promise, None if found.outlined is None else found.outlined.promise]
    for sentence in [*(each.words for each in promises if each is not None), *found.notes]:
        tell(sentence)
