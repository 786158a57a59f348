"""Runs in the peer's environment: fit and score through its own engine, clocks and sizes as one line of JSON.

/path/to/peer/bin/python benchmarks/inspection/peer/fit.py METHOD ROOT WEIGHTS EPOCHS THREADS FOLDER
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

warnings.filterwarnings("ignore")


class Clock:
    """CPU seconds spent in the backbone since it was last asked."""

    def __init__(self, backbone: nn.Module) -> None:
        self.total = 0.0
        backbone.register_forward_pre_hook(self._start)
        backbone.register_forward_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self.started = time.process_time()

    def _stop(self, *_: Any) -> None:
        self.total += time.process_time() - self.started

    def read(self) -> float:
        """The seconds, and start anew."""
        total, self.total = self.total, 0.0
        return total


def csflow(weights: str, quiet: dict[str, bool]) -> tuple[Any, nn.Module]:
    """Its CS-Flow on ResNet-18's third level.

    It always downloads EfficientNet-B5 and counts on that network's 304 channels at stride 32; both are replaced, so
    that the two sides see the same features. Everything else is its own.
    """
    from anomalib.models import Csflow
    from anomalib.models.components.feature_extractors import TimmFeatureExtractor
    from anomalib.models.image.csflow import torch_model

    class Level(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = TimmFeatureExtractor(backbone="resnet18", layers=["layer3"], pre_trained=False)
            self.network.feature_extractor.load_state_dict(load_file(weights), strict=False)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"features.6.8": self.network(images)["layer3"]}

    class Pyramid(torch_model.CsFlowMultiScaleFeatureExtractor):
        def __init__(self, n_scales: int, input_size: tuple[int, int]) -> None:
            nn.Module.__init__(self)
            self.n_scales, self.input_size = n_scales, input_size
            self.feature_extractor = Level()

    node = torch_model.InputNode
    torch_model.CsFlowMultiScaleFeatureExtractor = Pyramid
    torch_model.InputNode = lambda _, height, width, name: node(256, 2 * height, 2 * width, name=name)
    model = Csflow(**quiet)
    return model, model.model.feature_extractor.feature_extractor


def main(method: str, root: str, weights: str, epochs: int, threads: int, folder: str) -> None:
    """As its documentation does it; no validation, no visualiser, no logger, which would cost it time."""
    torch.set_num_threads(threads)
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Cflow, Fastflow

    parts = sorted(path.name for path in (Path(root) / "test").iterdir() if path.name != "good")
    data = Folder(
        name="race",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{part}" for part in parts],
        train_batch_size=16 if method == "csflow" else 32,
        eval_batch_size=8,
        num_workers=0,
        val_split_mode="same_as_test",  # never looked at: limit_val_batches is 0
    )
    quiet = {"visualizer": False, "evaluator": False}
    if method == "fastflow":
        model = Fastflow(backbone="resnet18", pre_trained=False, conv3x3_only=True, **quiet)
        backbone = model.model.feature_extractor
        backbone.load_state_dict(load_file(weights), strict=False)
    elif method == "csflow":
        model, backbone = csflow(weights, quiet)
    else:
        model = Cflow(backbone="resnet18", layers=("layer2", "layer3"), pre_trained=False, lr=2e-4, **quiet)
        backbone = model.model.encoder.feature_extractor
        backbone.load_state_dict(load_file(weights), strict=False)
    backbone_clock = Clock(backbone)
    engine = Engine(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    # its FastFlow stops early on a validation metric that is not computed here
    model.configure_callbacks = list
    started_cpu = time.process_time()
    wall, cpu = time.monotonic(), time.process_time()
    engine.fit(model=model, datamodule=data)
    fit_wall, fit_cpu, fit_backbone = time.monotonic() - wall, time.process_time() - cpu, backbone_clock.read()
    wall, cpu = time.monotonic(), time.process_time()
    batches = engine.predict(model=model, datamodule=data)
    score_wall, score_cpu, score_backbone = time.monotonic() - wall, time.process_time() - cpu, backbone_clock.read()
    scores = torch.cat([batch.pred_score.flatten() for batch in batches]).tolist()
    labels = torch.cat([batch.gt_label.flatten() for batch in batches]).int().tolist()
    checkpoint = Path(folder) / "race.ckpt"
    engine.trainer.save_checkpoint(checkpoint)
    weights_only = Path(folder) / "race.pt"
    torch.save(model.state_dict(), weights_only)
    found = {
        "fit_seconds": fit_wall,
        "fit_cpu_seconds": fit_cpu,
        "score_seconds": score_wall,
        "score_cpu_seconds": score_cpu,
        "start_cpu_seconds": started_cpu,
        "fit_backbone_cpu_seconds": fit_backbone,
        "score_backbone_cpu_seconds": score_backbone,
        "images": len(scores),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "file_megabytes": checkpoint.stat().st_size / 1e6,
        "weights_only_megabytes": weights_only.stat().st_size / 1e6,
        "scores": scores,
        "labels": labels,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
