"""Side by side with pytorch-ood: agreement of scores, ODIN's speed, ten detectors on one set, metrics of many scores.

    python -m benchmarks.classifiers.race --data DIR [--environment DIR] [--scores 10000000]

makes an environment of its own for pytorch-ood 0.4.0 and torchmetrics (same torch as here), runs both libraries in one
process, in turns, at one thread, and writes results/race.json. Times are CPU seconds, medians of the rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import POOLS, environment
from benchmarks.provenance import ROOT, Stopwatch, provenance
from benchmarks.records import read, write

HERE = Path(__file__).parent
PEERS = ("pytorch-ood==0.4.0", "torchmetrics==1.9.0", "lightning-utilities", "pandas", "tqdm", "requests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("DRACONES_TEST_DATA"))
    parser.add_argument("--environment", type=Path, help="of the peers; default: in the temporary folder")
    parser.add_argument("--scores", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="agreement,odin,ten_detectors,metrics", help="others keep their last result")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        python = environment("classifiers", PEERS, beside_ours=True, folder=options.environment)
        command = [python, "-m", "benchmarks.classifiers.race", *sys.argv[1:], "--inside"]
        raise SystemExit(subprocess.call(command, env={**os.environ, **dict.fromkeys(POOLS, "1")}, cwd=ROOT))
    race(options)


def race(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    path = HERE / "results" / "race.json"
    result: dict[str, Any] = read(path) if path.exists() else {}
    case = Case(options.data)
    result |= {"images": len(case.images), "train": len(case.train)}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "agreement": lambda: agreement(case),
        "odin": lambda: odin_speed(case, options.rounds),
        "ten_detectors": lambda: ten_detectors(case, options.rounds),
        "metrics": lambda: metrics(options.scores, options.rounds),
    }
    for name in options.parts.split(","):
        watch = Stopwatch()
        result[name] = parts[name]()
        result[name]["provenance"] = provenance() | watch.read()
        print(json.dumps({name: result[name]}, indent=1), flush=True)
        write(path, result)


class Case:
    """ResNet-20, 2,000 images (half CIFAR-100) and 4,000 training images, as both libraries take them."""

    def __init__(self, data: Path) -> None:
        import numpy as np
        import torch
        from safetensors.torch import load_file

        from benchmarks.classifiers.networks import MEAN, STD, resnet20
        from benchmarks.classifiers.sets import as_is, encoded, load_normal

        self.net = resnet20().eval()
        self.net.load_state_dict(load_file(data / "classifiers/cifar10_resnet20_akamaster.safetensors"))
        normal = load_normal(data, tuning=0, count=1000).test
        near = encoded(data / "cifar100/cifar100_test_lossless_5k.npz", as_is)[0][::5]
        train, labels = encoded(data / "cifar10/cifar10_train_lossless_20k.npz", as_is)
        self.images = torch.from_numpy(np.concatenate([normal, near])).permute(0, 3, 1, 2).float() / 255
        self.train = torch.from_numpy(train[::5]).permute(0, 3, 1, 2).float() / 255
        self.labels = torch.from_numpy(labels[::5])
        self.mean, self.std = MEAN, STD
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.normalised = (self.images - mean) / std
        self.train_normalised = (self.train - mean) / std

    def guard(self, name: str, **options: Any) -> Any:
        import dracones

        return dracones.create(
            name, classifier=self.net, mean=self.mean, std=self.std, calibration_share=0.0, **options
        )

    def fitted(self, name: str, **options: Any) -> Any:
        return self.guard(name, **options).fit(self.train, labels=self.labels.numpy(), device="cpu")

    def features(self, x: Any) -> Any:
        """What a user of the peer writes: the network up to its last layer."""
        import torch

        net = self.net
        x = torch.relu(net.bn1(net.conv1(x)))
        return torch.mean(net.layer3(net.layer2(net.layer1(x))), dim=(2, 3))

    def maps(self, x: Any) -> Any:
        return self.features(x)[:, :, None, None]

    def head(self, x: Any) -> Any:
        return self.net.linear(x.flatten(1))


def peers(case: Case) -> dict[str, Any]:
    """pytorch-ood's detectors with the settings of ours, unfitted."""
    from pytorch_ood import detector as peer

    weight, bias = case.net.linear.weight, case.net.linear.bias
    return {
        "msp": peer.MaxSoftmax(case.net),
        "max_logit": peer.MaxLogit(case.net),
        "energy": peer.EnergyBased(case.net),
        "entropy": peer.Entropy(case.net),
        "gen": peer.GEN(case.net),
        "knn": peer.KNN(case.features, k=50),
        "mahalanobis": peer.Mahalanobis(case.features),
        "relative_mahalanobis": peer.RMD(case.features),
        "vim": peer.ViM(case.features, d=32, w=weight, b=bias),
        "react": peer.ReAct(case.maps, case.head, percentile=0.9),
        "ash": peer.ASH(case.maps, case.head, percentile=0.9),
        "scale": peer.SCALE(case.maps, case.head, percentile=0.85),
        "dice": peer.DICE(case.features, w=weight, b=bias, p=0.9),
    }


def loader(case: Case) -> Any:
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(case.train_normalised, case.labels), batch_size=64)


def agreement(case: Case) -> dict[str, Any]:
    """How far the two libraries' scores lie apart, in the peer's units (the change of units is in our docstrings)."""
    import torch
    from pytorch_ood import detector as peer

    from dracones.methods.guards import Gen

    count, classes = len(case.train), 10
    features = case.features(case.train_normalised).double()
    means = torch.stack([features[case.labels == k].mean(0) for k in range(classes)])
    within = (features - means[case.labels]).T @ (features - means[case.labels])
    # The peer adds 1e-6 to the diagonal of the summed, not the averaged, scatter.
    ridge = float(1e-6 / within.detach().diagonal().mean())
    options = {"mahalanobis": {"ridge": ridge}, "relative_mahalanobis": {"ridge": ridge}}
    to_theirs: dict[str, Callable[[Any], Any]] = {
        "msp": lambda s: s - 1,
        "gen": lambda s: s / classes,
        "mahalanobis": lambda s: s / (2 * count),
        "relative_mahalanobis": lambda s: s / count,
    }
    found = {}
    with torch.no_grad():
        for name, theirs in peers(case).items():
            if getattr(theirs, "requires_fit", False) or name in {"relative_mahalanobis"}:
                theirs.fit(loader(case))
            b = torch.cat([theirs.predict(x) for x in case.normalised.split(250)]).double()
            guard = case.fitted(name, **options.get(name, {}))
            if name == "gen":
                outputs = guard.method.gather(_collection(guard, case.images))[0]
                a = Gen.score(outputs.logits, floor=1e-7).double()
                unclamped = guard.method.score_outputs(outputs.logits, outputs.features).double()
            else:
                a = torch.from_numpy(guard.predict(case.images, batch_size=64).scores).double()
            change = to_theirs.get(name, lambda s: s)
            found[name] = _difference(change(a), b)
            if name == "gen":
                found["gen, as published (no clamp)"] = _difference(change(unclamped), b)
            if name == "vim":
                exact = vim_in_float64(case)
                found["vim, ours to float64"] = _difference(a, exact)
                found["vim, theirs to float64"] = _difference(b, exact)
    for variant in ("b", "p"):
        theirs = peer.ASH(case.maps, case.head, percentile=0.9, variant=f"ash-{variant}")
        b = torch.cat([theirs.predict(x) for x in case.normalised.split(250)]).double()
        a = torch.from_numpy(case.fitted("ash", variant=variant).predict(case.images).scores).double()
        found[f"ash-{variant}"] = _difference(a, b)
    theirs = peer.ODIN(case.net, eps=0.0014, temperature=1000.0, norm_std=list(case.std))
    b = torch.cat([theirs.predict(x) for x in case.normalised.split(64)]).double()
    for label, extra in ODIN_WAYS.items():
        guard = case.fitted("odin", epsilon=0.0014, **extra)
        a = torch.from_numpy(guard.predict(case.images, batch_size=64).scores).double()
        found[f"odin{label}"] = _difference(a - 1, b)
    return {"scores": found}


def vim_in_float64(case: Case) -> Any:
    """ViM by its definition, everything in float64: the judge where the two libraries differ."""
    import copy

    import torch

    wide = copy.copy(case)
    wide.net = copy.deepcopy(case.net).double()
    with torch.no_grad():
        z, test = (
            torch.cat([wide.features(x.double()) for x in images.split(250)])
            for images in (case.train_normalised, case.normalised)
        )
        weight, bias = wide.net.linear.weight, wide.net.linear.bias
        origin = -torch.linalg.pinv(weight) @ bias
        vectors = torch.linalg.svd(z - origin, full_matrices=False).Vh[32:].T
        alpha = (z @ weight.T + bias).amax(1).mean() / ((z - origin) @ vectors).norm(dim=1).mean()
        return alpha * ((test - origin) @ vectors).norm(dim=1) - torch.logsumexp(test @ weight.T + bias, 1)


ODIN_WAYS: dict[str, dict[str, Any]] = {
    "": {},
    ", accelerate": {"accelerate": True},
    ", accelerate, gradient in bfloat16": {"accelerate": True, "gradient_precision": "bfloat16"},
}


def _collection(guard: Any, images: Any) -> Any:
    from dracones.images import open_images

    return guard.adopt(open_images(images))


def _difference(a: Any, b: Any) -> dict[str, float]:
    """Largest difference, absolute and as a share of the scores where they exceed 1, and what it does to AUROC."""
    import numpy as np

    from dracones.metrics import auroc

    gap = (a - b).abs()
    labels = np.repeat([0, 1], len(a) // 2)
    return {
        "largest": float(gap.max()),
        "largest_relative": float((gap / b.abs().clamp_min(1)).max()),
        "over_spread": float(gap.max() / b.std()),
        "auroc_ours": auroc(a.numpy(), labels),
        "auroc_theirs": auroc(b.numpy(), labels),
    }


def odin_speed(case: Case, rounds: int) -> dict[str, Any]:
    """Images per CPU second, batches of 64, each way in every round."""
    from pytorch_ood import detector as peer

    images, normalised = case.images[:512], case.normalised[:512]
    theirs = peer.ODIN(case.net, eps=0.0014, temperature=1000.0, norm_std=list(case.std))
    ways = {"pytorch-ood": lambda: [theirs.predict(x) for x in normalised.split(64)]}
    for label, extra in ODIN_WAYS.items():
        guard = case.fitted("odin", epsilon=0.0014, **extra)
        ways[f"dracones{label}"] = lambda g=guard: [g.score(x) for x in images.split(64)]
    seconds = in_turns(ways, rounds)
    speeds = {name: len(images) / value for name, value in seconds.items()}
    return {
        "images_per_cpu_second": speeds,
        "times_pytorch_ood": {name: speed / speeds["pytorch-ood"] for name, speed in speeds.items()},
    }


def ten_detectors(case: Case, rounds: int) -> dict[str, Any]:
    """Fit ten detectors on 4,000 images and score 2,000: each on its own as its `fit` and `predict` do, or shared."""
    import torch

    from dracones.methods.guards.outputs import ClassifierOutputs

    names = (
        "msp",
        "max_logit",
        "energy",
        "entropy",
        "gen",
        "knn",
        "mahalanobis",
        "relative_mahalanobis",
        "vim",
        "react",
    )

    def theirs() -> None:
        with torch.no_grad():
            for name, detector in peers(case).items():
                if name in names:
                    if getattr(detector, "requires_fit", False) or name == "relative_mahalanobis":
                        detector.fit(loader(case))
                    for x in case.normalised.split(64):
                        detector.predict(x)

    def theirs_by_hand() -> None:
        """The peer's detectors on features the user extracts once by hand."""
        with torch.no_grad():
            z = torch.cat([case.features(x) for x in case.train_normalised.split(64)])
            test = torch.cat([case.features(x) for x in case.normalised.split(64)])
            logits = case.net.linear(test)
            for name, detector in peers(case).items():
                if name not in names:
                    continue
                if name in {"msp", "max_logit", "energy", "entropy", "gen"}:
                    detector.predict_logits(logits)
                elif name == "react":
                    detector.fit_feature_maps(z[:, :, None, None], case.labels)
                    detector.predict_feature_maps(test[:, :, None, None])
                else:
                    detector.fit_features(z, case.labels)
                    detector.predict_features(test)

    def ours(**options: Any) -> None:
        guards = {name: case.guard(name, **options).method for name in names}
        reader = guards["knn"]
        outputs, _ = reader.gather(_collection(reader, case.train))
        for guard in guards.values():
            guard.fit_outputs(outputs.logits, outputs.features, labels=case.labels, head=reader.probe.head)
        parts = [reader.probe(x) for x in case.images.split(64)]
        joined = ClassifierOutputs.join(parts)
        for guard in guards.values():
            guard.score_outputs(joined.logits, joined.features)

    seconds = in_turns(
        {
            "pytorch-ood": theirs,
            "pytorch-ood, features shared by hand": theirs_by_hand,
            "dracones": ours,
            "dracones, accelerate": lambda: ours(accelerate=True),
        },
        min(rounds, 3),
    )
    base = seconds["pytorch-ood"]
    return {"detectors": names, "cpu_seconds": seconds, "times_faster": {n: base / s for n, s in seconds.items()}}


def metrics(count: int, rounds: int) -> dict[str, Any]:
    """AUROC, average precision and FPR at 95 % TPR of many scores (torchmetrics: exact AUROC and average precision)."""
    import numpy as np
    import torch
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    from dracones.metrics import Ranking

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count).astype(np.int64)
    # In [0, 1], as torchmetrics would put others through a sigmoid of its own; float32 for all.
    scores = (1 / (1 + np.exp(-rng.normal(size=count) - labels))).astype(np.float32)
    unit, targets = torch.from_numpy(scores), torch.from_numpy(labels)
    answers: dict[str, tuple[float, float]] = {}

    def ours() -> None:
        ranking = Ranking(scores, labels)
        answers["dracones"] = (ranking.auroc(), ranking.aupr("out"))
        ranking.fpr_at_tpr(0.95, positive="in")

    def scikit() -> None:
        answers["scikit-learn"] = (roc_auc_score(labels, scores), average_precision_score(labels, scores))
        roc_curve(labels, scores, drop_intermediate=False)

    def torchmetrics() -> None:
        answers["torchmetrics"] = (float(binary_auroc(unit, targets)), float(binary_average_precision(unit, targets)))

    seconds = in_turns({"dracones": ours, "scikit-learn": scikit, "torchmetrics": torchmetrics}, min(rounds, 3))
    return {
        "scores": count,
        "cpu_seconds": seconds,
        "times_faster_than": {name: value / seconds["dracones"] for name, value in seconds.items()},
        "auroc_and_average_precision": answers,
    }


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way, run in turns so that a busy machine slows all alike; one warm-up each."""
    import statistics

    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if turn:
                taken[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
