"""Runs in the peer's environment: fit its PatchCore, export it, and score the same photographs through each, as JSON.

    /path/to/peer/bin/python benchmarks/export/peer_side.py ROOT WEIGHTS PHOTOGRAPHS FOLDER

ROOT has MVTec's layout, PHOTOGRAPHS is a text file of paths. Everything is done as its documentation does it.
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

Image = NDArray[np.uint8]
Answers = list[tuple[float, bool]]
SIDE = 256
"""Height and width that its PatchCore brings images to."""
SIZES = 4
"""Photographs that a file of their own size is exported for."""

warnings.filterwarnings("ignore")


def fitted(root: str, weights: str, folder: str) -> tuple[Any, Any]:
    """Its engine and PatchCore; the threshold is the one of its validation part, by F1."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    parts = sorted(path.name for path in (Path(root) / "test").iterdir() if path.name != "good")
    data = Folder(
        name="line",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{part}" for part in parts],
        train_batch_size=16,
        eval_batch_size=8,
        num_workers=0,
        val_split_mode="same_as_test",
    )
    torch.manual_seed(0)
    model = Patchcore(
        backbone="resnet18",
        layers=("layer2", "layer3"),
        pre_trained=False,
        coreset_sampling_ratio=0.01,
        visualizer=False,
        evaluator=False,
    )
    network = model.model.feature_extractor
    missing = network.feature_extractor.load_state_dict(load_file(weights), strict=False)
    assert not missing.missing_keys, missing
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder, enable_progress_bar=False)
    engine.fit(model=model, datamodule=data)
    return engine, model


def by_engine(engine: Any, model: Any, photographs: list[str]) -> Answers:
    """`Engine.predict`, in torch."""
    from anomalib.data import PredictDataset

    found = []
    for path in photographs:
        batch = engine.predict(model=model, dataset=PredictDataset(path=path))[0]
        found.append((float(batch.pred_score.flatten()[0]), bool(batch.pred_label.flatten()[0])))
    return found


def batch_of(side: Any) -> int:
    """How many images a file takes at once: some take two and no other number, and are fed the same one twice."""
    return side if isinstance(side, int) else 1


def by_onnx(file: Path, images: list[Image]) -> Answers:
    """Its ONNX file by onnxruntime: RGB in [0, 1], as its own inferencer prepares it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    count = batch_of(session.get_inputs()[0].shape[0])
    names = [each.name for each in session.get_outputs()]
    found = []
    for image in images:
        batch = np.repeat(image.transpose(2, 0, 1)[None].astype(np.float32) / 255, count, axis=0)
        answer = dict(zip(names, session.run(None, {session.get_inputs()[0].name: batch}), strict=True))
        found.append((float(answer["pred_score"].flatten()[0]), bool(answer["pred_label"].flatten()[0])))
    return found


def by_openvino(file: Path, images: list[Image]) -> Answers:
    """Its OpenVINO file by its own inferencer."""
    from anomalib.deploy import OpenVINOInferencer

    inferencer = OpenVINOInferencer(path=file, device="CPU")
    first = inferencer.model.input(0).partial_shape[0]
    count = batch_of(first.get_length() if first.is_static else None)
    batches = [np.repeat(image[None].astype(np.float32) / 255, count, axis=0) for image in images]
    said = [inferencer.predict(batch) for batch in batches]
    return [(float(np.ravel(each.pred_score)[0]), bool(np.ravel(each.pred_label)[0])) for each in said]


def ways(engine: Any, model: Any, photographs: list[str], folder: str) -> dict[str, Any]:
    """Each format, in each way that a photograph can be brought to the file."""
    import cv2
    from PIL import Image as Pillow

    whole = [np.array(Pillow.open(path).convert("RGB")) for path in photographs]
    by_pillow = [np.array(Pillow.fromarray(each).resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)) for each in whole]
    by_opencv = [cv2.resize(each, (SIDE, SIDE)) for each in whole]

    def exported(kind: str, size: tuple[int, int] | None) -> Path:
        name = "default" if size is None else f"{size[0]}x{size[1]}"
        place = Path(folder) / f"{kind}_{name}"
        return Path(engine.export(model=model, export_type=kind, export_root=place, input_size=size))

    found: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    for kind, score in (("onnx", by_onnx), ("openvino", by_openvino)):
        found[f"{kind}, no size named"] = attempt(lambda kind, score: score(exported(kind, None), whole), kind, score)
        file = exported(kind, (SIDE, SIDE))
        inputs |= {f"{kind}, {SIDE}x{SIDE}": shape_of(file), f"{kind}, no size named": shape_of(exported(kind, None))}
        found[f"{kind}, resized by Pillow"] = score(file, by_pillow)
        found[f"{kind}, resized by OpenCV"] = score(file, by_opencv)
        own = []
        for image in whole[:SIZES]:
            own += score(exported(kind, image.shape[:2]), [image])
        found[f"{kind}, of the photograph's size"] = own
    return {**found, "inputs": inputs}


def shape_of(file: Path) -> str:
    """The shape that a file says it takes."""
    import openvino

    return str(openvino.Core().read_model(file).input(0).partial_shape)


def attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """The answers, or the error in a line."""
    try:
        return work(*arguments)
    except Exception as error:
        return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:400]}


def main(root: str, weights: str, listed: str, folder: str) -> None:
    """Fit, export, score."""
    from importlib.metadata import version

    torch.set_num_threads(1)
    photographs = Path(listed).read_text().split("\n")
    engine, model = fitted(root, weights, folder)
    found: dict[str, Any] = {"torch": by_engine(engine, model, photographs)} | ways(engine, model, photographs, folder)
    versions = {name: version(name) for name in ("anomalib", "torch", "onnxruntime", "openvino")}
    print("\n" + json.dumps({"inputs": found.pop("inputs"), "answers": found, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
