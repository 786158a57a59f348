"""Flows on embeddings: `python -m benchmarks.paradox.embeddings`. Likelihood works where pixels fail.

A tabular RealNVP learns the pooled maps of a frozen ImageNet backbone (ResNet-18, levels 2 and 3: 128 + 256 numbers)
of the normal training images, all sets brought to 64x64 alike, and scores by plain likelihood, DoSE and the rest. What
an embedding adds to `auto` on pixels is measured in `auto.py`.
Kirichenko et al. 2020, section 8, with a smaller backbone. The backbone has seen ImageNet: this is another kind of
knowledge than that of a density of pixels, and has its own table.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.paradox.datasets import data_root, test_images, train_images
from benchmarks.paradox.evaluate import AGAINST, RESULTS, row_of, scored, shuffled
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.densities import create_tabular
from dracones.features import FeatureExtractor
from dracones.rules import create
from dracones.training import TrainingConfig, train

TRAINED_ON, TESTED_ON = 8000, 1000
RULES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("likelihood", "likelihood", {}),
    ("latent term", "latent", {}),
    ("volume term", "volume", {}),
    ("typicality", "typicality", {}),
    ("DoSE, kernel densities", "dose", {}),
    ("joint density of the statistics", "joint", {}),
    ("auto", "auto", {}),
)


def embed(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    """Pooled maps of both levels [N, 384]."""
    rows = []
    for batch in scored(images):
        large = interpolate(batch, size=(64, 64), mode="bilinear", align_corners=False)
        with torch.no_grad():
            rows.append(torch.cat([level.mean(dim=(2, 3)) for level in extractor(large)], dim=1))
    return torch.cat(rows)


def evaluate(name: str, seed: int = 0) -> dict[str, Any]:
    """Embed, train, score one normal set against its others."""
    started = time.process_time()
    weights = data_root() / "backbones" / "resnet18_tv_layer123_fp16.safetensors"
    channels = int(test_images(name).shape[1])
    extractor = FeatureExtractor("resnet18", levels=(2, 3), weights=weights, channels=channels)
    vectors = embed(extractor, shuffled(train_images(name), TRAINED_ON))
    flow = create_tabular("embeddings", features=vectors.shape[1], seed=seed)
    held_out = torch.arange(len(vectors)) % 5 == 4
    flow.standardise(vectors[~held_out])
    config = TrainingConfig(
        epochs=40,
        batch_size=256,
        learning_rate=5e-4,
        weight_decay=1e-3,
        optimizer="adamw",
        schedule="cosine",
        clip_norm=10.0,
        patience=6,
        seed=seed,
        device="cpu",
        threads=1,
    )
    report = train(flow, vectors[~held_out], config, validation=vectors[held_out])
    flow.eval()
    with torch.no_grad():
        # the held-out fifth: the flow knows its training vectors too well for their likelihoods to be typical
        fitted = flow.statistics(vectors[held_out])
        sets = {
            each: flow.statistics(embed(extractor, shuffled(test_images(each), TESTED_ON)))
            for each in (name, *AGAINST[name])
        }
    table: dict[str, dict[str, Any]] = {}
    for title, rule_name, options in RULES:
        rule = create(rule_name, **options)
        rule.fit(fitted)
        table[title] = row_of({each: rule.score(found) for each, found in sets.items()}, name)
    return {
        "trained_on": name,
        "backbone": "resnet18 (torchvision IMAGENET1K_V1, layers 1-3), levels 2 and 3 pooled, images at 64x64",
        "flow": flow.config,
        "training": {"images": int((~held_out).sum()), "epochs": report.epochs, "config": config.model_dump()},
        "rules_fitted_on": f"{int(held_out.sum())} held-out images of the training set",
        "test_images_at_most": TESTED_ON,
        **provenance(),
        "cpu_seconds": round(time.process_time() - started, 1),
        "auroc": table,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(AGAINST))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.names:
        result = evaluate(name)
        file = arguments.results / f"embeddings-{name.lower().replace('-', '')}.json"
        write(file, result)
        for title, row in result["auroc"].items():
            print(f"  {title:34s}", {other: cell["value"] for other, cell in row.items()}, flush=True)


if __name__ == "__main__":
    main()
