"""Every post-hoc score, and ODIN under three tuning protocols, on a pretrained CIFAR-10 network.

    python -m benchmarks.classifiers.table --data DIR --network resnet20 [--normal 9000 --count 4000 --tuning 1000]

writes results/table_NETWORK.json. One thread. `--add NAME` scores one more method on the
same images and adds it to the result that is there.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dracones
from benchmarks.classifiers.networks import MEAN, STD
from benchmarks.classifiers.sets import NEAR, Part, load_anomalous, load_normal, load_training
from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import read, write
from dracones.detectors import Detector
from dracones.detectors.comparison import classifier_methods, compare
from dracones.images import open_images
from dracones.methods.guards.tuning import EPSILONS, Grid, choose_by_validation
from dracones.metrics import evaluate_scores

HERE = Path(__file__).parent
VALIDATION_SET = "Tiny ImageNet resize"
STEPS = EPSILONS[::2]  # 11 of the paper's 21, to the same 0.004
TEMPERATURES = (1.0, 10.0, 1000.0)
# Where the paper's range ends before ODIN's gain does: sets that are tuned once more, on larger steps.
WIDE_SETS = ("CelebA", "Uniform noise", "Gaussian noise")
WIDE_STEPS = (0.0, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("DRACONES_TEST_DATA"))
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--normal", type=int, default=9000)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--tuning", type=int, default=1000)
    parser.add_argument("--protocols", default="in_distribution,validation,per_set", help="of ODIN, commas between")
    parser.add_argument("--wide", action="store_true", help="add ODIN with larger steps to an existing result")
    parser.add_argument("--add", metavar="NAME", help="score one more method and add it to an existing result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch()
    path = HERE / "results" / f"table_{options.network}.json"
    guard = {
        "classifier": f"{HERE / 'networks.py'}:{options.network}",
        "classifier_weights": str(options.data / f"classifiers/cifar10_{options.network}_akamaster.safetensors"),
        "mean": MEAN,
        "std": STD,
        "accelerate": True,
    }
    normal = load_normal(options.data, tuning=options.tuning, count=options.normal)
    anomalous = load_anomalous(options.data, tuning=options.tuning, count=options.count)
    if options.wide:
        result = read(path)
        result["odin"]["per_set_wide"] = wide_steps(guard, normal, anomalous)
        result["odin"]["wide_grid"] = {"temperatures": TEMPERATURES, "epsilons": WIDE_STEPS}
        write(path, result)
        return
    if options.add:
        result = read(path)
        found = scores_of_all(guard, normal, anomalous, options.data, [options.add])
        join(result, options.add, found, provenance() | watch.read())
        write(path, result)
        return
    every = [name for name in classifier_methods() if name != "odin"]
    result = {
        "network": options.network,
        "accuracy": accuracy(guard, normal),
        "counts": {"normal": len(normal.test), **{name: len(part.test) for name, part in anomalous.items()}},
        "tuning_counts": {"normal": len(normal.tuning), **{n: len(part.tuning) for n, part in anomalous.items()}},
        "scores": scores_of_all(guard, normal, anomalous, options.data, every),
        "odin": odin_protocols(guard, normal, anomalous, options.protocols.split(",")),
    }
    result["provenance"] = provenance() | watch.read()
    write(path, result)
    print(f"wrote {path} after {result['provenance']['seconds']} s")


def accuracy(guard: dict[str, Any], normal: Part) -> float:
    """Share of the normal test images that the network names correctly."""
    probe = dracones.create("msp", **guard).probe
    images = open_images(normal.test, layout="NHWC")
    found = torch.cat([probe(batch.images).logits.argmax(1) for batch in images.batches(64)])
    return float((found.numpy() == normal.labels).mean())


def join(result: dict[str, Any], name: str, found: dict[str, Any], origin: dict[str, Any]) -> None:
    """One method's rows in a result of the others, with where they come from; rows that were there give way.

    Raises:
        ValueError: the images differ in number from those of the result.
    """
    scores = result["scores"]
    if scores["counts"] != found["counts"] or scores["train"] != found["train"]:
        raise ValueError(f"{name}: scored on {found['counts']}, the result on {scores['counts']}; give the same counts")
    scores["rows"] = [row for row in scores["rows"] if row["method"] != name] + found["rows"]
    for what in ("means", "cpu_seconds"):
        scores[what] |= {key: value for key, value in found[what].items() if key == name}
    result.setdefault("added", {})[name] = origin


def scores_of_all(
    guard: dict[str, Any], normal: Part, anomalous: dict[str, Part], data: Path, methods: list[str]
) -> dict[str, Any]:
    """All methods but ODIN from one pass, with the papers' settings."""
    images, labels = load_training(data)
    started = time.process_time()
    found = compare(
        guard["classifier"],
        train=open_images(images, labels=labels, layout="NHWC"),
        normal=open_images(normal.test, layout="NHWC"),
        near={name: open_images(anomalous[name].test, layout="NHWC") for name in NEAR},
        far={name: open_images(part.test, layout="NHWC") for name, part in anomalous.items() if name not in NEAR},
        methods=methods,
        **{key: value for key, value in guard.items() if key != "classifier"},
    )
    print(f"scores: {time.process_time() - started:.0f} CPU s")
    return {"train": len(images), **found.to_json()}


def odin_protocols(
    guard: dict[str, Any], normal: Part, anomalous: dict[str, Part], protocols: list[str]
) -> dict[str, Any]:
    """ODIN tuned on normal images alone, on one named validation set, and on a part of each set (the paper's way)."""
    odin = fitted(guard, normal)
    cache: dict[tuple[float, float, str], np.ndarray] = {}

    def judge(name: str) -> dict[str, Any]:
        return judged(odin, normal, anomalous[name], name, cache)

    started = time.process_time()
    found: dict[str, Any] = {"grid": {"temperatures": TEMPERATURES, "epsilons": STEPS}}
    if "in_distribution" in protocols:
        found["in_distribution"] = {name: judge(name) for name in anomalous}
        print(f"ODIN in-distribution: {odin.method.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    inside = grid(odin, normal) if {"validation", "per_set"} & set(protocols) else {}
    if "per_set" in protocols:
        found["per_set"] = {}
        for name, part in anomalous.items():
            tune(odin, inside, part, name)
            found["per_set"][name] = judge(name)
            print(f"ODIN per set: {name}: {odin.method.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    if "validation" in protocols:
        tune(odin, inside, anomalous[VALIDATION_SET], VALIDATION_SET)
        found["validation"] = {name: judge(name) for name in anomalous}
        print(f"ODIN validation: {odin.method.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    return found


def wide_steps(guard: dict[str, Any], normal: Part, anomalous: dict[str, Part]) -> dict[str, Any]:
    """ODIN per set, with steps beyond the paper's range."""
    odin = fitted(guard, normal)
    inside = grid(odin, normal, WIDE_STEPS)
    found = {}
    for name in WIDE_SETS:
        tune(odin, inside, anomalous[name], name, WIDE_STEPS)
        found[name] = judged(odin, normal, anomalous[name], name, {})
        print(f"ODIN per set, larger steps: {name}: {odin.method.tuning}", flush=True)
    return found


def fitted(guard: dict[str, Any], normal: Part) -> Detector:
    """ODIN with its step chosen on the normal tuning part alone."""
    odin = dracones.create("odin", calibration_share=0.0, tuning_images=len(normal.tuning), **guard)
    return odin.fit(open_images(normal.tuning, layout="NHWC"), device="cpu")


def judged(
    odin: Detector, normal: Part, part: Part, name: str, cache: dict[tuple[float, float, str], np.ndarray]
) -> dict[str, Any]:
    """Metrics of ODIN as it is tuned now; scores of a set and setting are computed once."""
    sides = {"normal": normal.test, name: part.test}
    for side, images in sides.items():
        key = (float(odin.method.temperature), float(odin.method.epsilon), side)
        if key not in cache:
            cache[key] = odin.predict(open_images(images, layout="NHWC"), batch_size=64).scores
    a, b = (cache[float(odin.method.temperature), float(odin.method.epsilon), side] for side in sides)
    metrics = evaluate_scores(np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)]))
    settings = {"T": float(odin.method.temperature), "epsilon": float(odin.method.epsilon)}
    return {"tuning": str(odin.method.tuning), **settings, "metrics": metrics}


def grid(odin: Detector, part: Part, steps: tuple[float, ...] = STEPS) -> Grid:
    """Scores of a tuning part for every (T, epsilon)."""
    return odin.method.grid(odin.adopt(open_images(part.tuning, layout="NHWC")), TEMPERATURES, steps)


def tune(odin: Detector, inside: Grid, part: Part, name: str, steps: tuple[float, ...] = STEPS) -> None:
    """The settings with the smallest FPR at 95 % TPR between the two tuning parts."""
    odin.method.adopt_tuning(choose_by_validation(inside, grid(odin, part, steps), name=f"{name}, tuning part"))


if __name__ == "__main__":
    main()
