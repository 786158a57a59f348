"""Runs in the peer's environment: fit and score through its own engine, clocks and sizes as one line of JSON.

/path/to/peer/bin/python benchmarks/inspection/peer/fit.py METHOD ROOT WEIGHTS EPOCHS THREADS FOLDER
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

warnings.filterwarnings("ignore")


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
        train_batch_size=32,
        eval_batch_size=8,
        num_workers=0,
        val_split_mode="same_as_test",  # never looked at: limit_val_batches is 0
    )
    quiet = {"visualizer": False, "evaluator": False}
    if method == "fastflow":
        model = Fastflow(backbone="resnet18", pre_trained=False, conv3x3_only=True, **quiet)
        model.model.feature_extractor.load_state_dict(load_file(weights), strict=False)
    else:
        model = Cflow(backbone="resnet18", layers=("layer2", "layer3"), pre_trained=False, lr=2e-4, **quiet)
        model.model.encoder.feature_extractor.load_state_dict(load_file(weights), strict=False)
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
    wall, cpu = time.monotonic(), time.process_time()
    engine.fit(model=model, datamodule=data)
    fit_wall, fit_cpu = time.monotonic() - wall, time.process_time() - cpu
    wall, cpu = time.monotonic(), time.process_time()
    batches = engine.predict(model=model, datamodule=data)
    score_wall, score_cpu = time.monotonic() - wall, time.process_time() - cpu
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
        "images": len(scores),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "file_megabytes": checkpoint.stat().st_size / 1e6,
        "weights_only_megabytes": weights_only.stat().st_size / 1e6,
        "scores": scores,
        "labels": labels,
    }
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
