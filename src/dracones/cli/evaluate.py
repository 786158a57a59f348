"""`dracones evaluate`: every metric, with its interval, for normal against anomalous images."""

from typing import Any

from dracones.cli.models import load_model, read_groups, use_threads_for
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
    Roi,
    Threads,
)
from dracones.cli.output import emit, report_skipped, skipped_records, table, tell
from dracones.cli.sides import Sides


def evaluate(
    model: Model,
    normal: Normal = None,
    anomalous: Anomalous = None,
    masks: Masks = None,
    no_masks: NoMasks = False,
    category: Category = None,
    roi: Roi = None,
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
    found = judge(
        detector,
        *Sides(normal, anomalous, masks, no_masks, category, roi).opened(model, detector),
        groups=read_groups(group),
        batch_size=batch_size,
        progress=RichProgress(),
    )
    if as_json:
        emit({**found.to_json(), "skipped": skipped_records(found.skipped)})
        return
    show(found)
    report_skipped(found.skipped)


def show(found: Any) -> None:
    """Print an evaluation as tables: value, low, high of each metric."""
    counts = found.counts
    if found.alarms is not None:
        shares = {"normal: false alarms": found.alarms["normal"], "anomalous: found": found.alarms["anomalous"]}
        shares |= {f"  {kind}": alarms for kind, alarms in found.kinds.items()}
        if found.outlined is not None:
            shares["normal: with an outline"] = found.outlined.normal
            shares["anomalous: with an outline"] = found.outlined.anomalous
        rows = [
            [what, f"{a.count} of {a.total}", a.share.value, a.share.low, a.share.high] for what, a in shares.items()
        ]
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
