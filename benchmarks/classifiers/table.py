"""Every post-hoc score, and ODIN under three tuning protocols, on a pretrained CIFAR-10 network.

    python benchmarks/classifiers/table.py --data DIR --network resnet20 [--normal 9000 --count 4000 --tuning 1000]

writes results/table_NETWORK.json. One thread.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import provenance
from networks import MEAN, STD
from sets import NEAR, Part, load_anomalous, load_normal, load_training

import dracones
from dracones.data import open_images
from dracones.detectors.classifier.comparison import classifier_methods, compare
from dracones.detectors.classifier.odin import Odin
from dracones.detectors.classifier.tuning import EPSILONS, Grid, choose_by_validation
from dracones.metrics import evaluate_scores

HERE = Path(__file__).parent
VALIDATION_SET = "Tiny ImageNet resize"
STEPS = EPSILONS[::2]  # 11 of the paper's 21, to the same 0.004
TEMPERATURES = (1.0, 10.0, 1000.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("DRACONES_TEST_DATA"))
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--normal", type=int, default=9000)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--tuning", type=int, default=1000)
    parser.add_argument("--protocols", default="in_distribution,validation,per_set", help="of ODIN, commas between")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, cpu_started = time.monotonic(), time.process_time()
    guard = {
        "classifier": f"{HERE / 'networks.py'}:{options.network}",
        "classifier_weights": str(options.data / f"classifiers/cifar10_{options.network}_akamaster.safetensors"),
        "mean": MEAN,
        "std": STD,
        "accelerate": True,
    }
    normal = load_normal(options.data, tuning=options.tuning, count=options.normal)
    anomalous = load_anomalous(options.data, tuning=options.tuning, count=options.count)
    result: dict[str, Any] = {
        "network": options.network,
        "accuracy": accuracy(guard, normal),
        "counts": {"normal": len(normal.test), **{name: len(part.test) for name, part in anomalous.items()}},
        "tuning_counts": {"normal": len(normal.tuning), **{n: len(part.tuning) for n, part in anomalous.items()}},
        "scores": scores_of_all(guard, normal, anomalous, options.data),
        "odin": odin_protocols(guard, normal, anomalous, options.protocols.split(",")),
    }
    result["provenance"] = provenance(started, cpu_started)
    path = HERE / "results" / f"table_{options.network}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path} after {result['provenance']['seconds']} s")


def accuracy(guard: dict[str, Any], normal: Part) -> float:
    """Share of the normal test images that the network names correctly."""
    probe = dracones.create("msp", **guard).probe
    images = open_images(normal.test, layout="NHWC")
    found = torch.cat([probe(batch.images).logits.argmax(1) for batch in images.batches(64)])
    return float((found.numpy() == normal.labels).mean())


def scores_of_all(guard: dict[str, Any], normal: Part, anomalous: dict[str, Part], data: Path) -> dict[str, Any]:
    """All methods but ODIN from one pass, with the papers' settings."""
    images, labels = load_training(data)
    started = time.process_time()
    found = compare(
        guard["classifier"],
        train=open_images(images, labels=labels, layout="NHWC"),
        normal=open_images(normal.test, layout="NHWC"),
        near={name: open_images(anomalous[name].test, layout="NHWC") for name in NEAR},
        far={name: open_images(part.test, layout="NHWC") for name, part in anomalous.items() if name not in NEAR},
        methods=[name for name in classifier_methods() if name != "odin"],
        **{key: value for key, value in guard.items() if key != "classifier"},
    )
    print(f"scores: {time.process_time() - started:.0f} CPU s")
    return {"train": len(images), **found.to_json()}


def odin_protocols(
    guard: dict[str, Any], normal: Part, anomalous: dict[str, Part], protocols: list[str]
) -> dict[str, Any]:
    """ODIN tuned on normal images alone, on one named validation set, and on a part of each set (the paper's way)."""
    odin = dracones.create("odin", calibration_share=0.0, tuning_images=len(normal.tuning), **guard)
    odin.fit(open_images(normal.tuning, layout="NHWC"), device="cpu")
    cache: dict[tuple[float, float, str], np.ndarray] = {}

    def judge(name: str) -> dict[str, Any]:
        sides = {"normal": normal.test, name: anomalous[name].test}
        for side, images in sides.items():
            key = (float(odin.temperature), float(odin.epsilon), side)
            if key not in cache:
                cache[key] = odin.predict(open_images(images, layout="NHWC"), batch_size=64).scores
        a, b = (cache[float(odin.temperature), float(odin.epsilon), side] for side in sides)
        metrics = evaluate_scores(np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)]))
        settings = {"T": float(odin.temperature), "epsilon": float(odin.epsilon)}
        return {"tuning": str(odin.tuning), **settings, "metrics": metrics}

    started = time.process_time()
    found: dict[str, Any] = {"grid": {"temperatures": TEMPERATURES, "epsilons": STEPS}}
    if "in_distribution" in protocols:
        found["in_distribution"] = {name: judge(name) for name in anomalous}
        print(f"ODIN in-distribution: {odin.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    inside = grid(odin, normal) if {"validation", "per_set"} & set(protocols) else {}
    if "per_set" in protocols:
        found["per_set"] = {}
        for name, part in anomalous.items():
            tune(odin, inside, part, name)
            found["per_set"][name] = judge(name)
            print(f"ODIN per set: {name}: {odin.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    if "validation" in protocols:
        tune(odin, inside, anomalous[VALIDATION_SET], VALIDATION_SET)
        found["validation"] = {name: judge(name) for name in anomalous}
        print(f"ODIN validation: {odin.tuning}, {time.process_time() - started:.0f} CPU s", flush=True)
    return found


def grid(odin: Odin, part: Part) -> Grid:
    """Scores of a tuning part for every (T, epsilon)."""
    return odin.grid(odin.adopt(open_images(part.tuning, layout="NHWC")), TEMPERATURES, STEPS)


def tune(odin: Odin, inside: Grid, part: Part, name: str) -> None:
    """The settings with the smallest FPR at 95 % TPR between the two tuning parts."""
    odin.adopt_tuning(choose_by_validation(inside, grid(odin, part), name=f"{name}, tuning part"))


if __name__ == "__main__":
    main()
