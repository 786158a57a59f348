"""What is exported: every registered method, fitted on few real images with little training, and images to score."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import dracones
from dracones.detectors import Detector
from dracones.images import open_images
from dracones.methods import method_names

Family = Literal["likelihood", "features", "classifier"]
SCORED = 64
"""Images that are scored: those of the test part that come first, none of which was fitted on."""

_SETS: dict[Family, tuple[str, str]] = {
    "likelihood": ("FashionMNIST:train", "FashionMNIST:test"),
    "features": ("cifar10/cifar10_train_lossless_20k.npz", "cifar10/cifar10_test_lossless.npz"),
    "classifier": ("cifar10/cifar10_train_lossless_20k.npz", "cifar10/cifar10_test_lossless.npz"),
}
_FITTED: dict[Family, int] = {"likelihood": 600, "features": 120, "classifier": 1500}
_TINY = {"training": {"epochs": 1}}


@dataclass(frozen=True)
class Model:
    """A method with options.

    Attributes:
        method: as registered.
        family: decides the images it is fitted on.
        options: beside those of the family.
        trains: whether it has a training loop, which is cut to one epoch.
    """

    method: str
    family: Family
    options: dict[str, Any] = field(default_factory=dict)
    trains: bool = True


_LIKELIHOODS = ("glow", "realnvp", "vae", "pixelcnn")
_FEATURES = {
    "cflow": Model("cflow", "features"),
    "csflow": Model("csflow", "features"),
    "differnet": Model("differnet", "features", {"levels": (3,), "map_rotations": 0}),
    "embedding_flow": Model("embedding_flow", "features", {"levels": (3,)}),
    "ensemble": Model("ensemble", "features", trains=False),
    "fastflow": Model("fastflow", "features"),
    "msflow": Model("msflow", "features"),
    "padim": Model("padim", "features", {"dimensions": 60}, trains=False),
    "patchcore": Model("patchcore", "features", {"memory_share": 0.05}, trains=False),
}
MODELS: dict[str, Model] = {
    **{
        f"{name}, {rule}": Model(name, "likelihood", {"rule": rule})
        for name in _LIKELIHOODS
        for rule in ("likelihood",)
    },
    "glow, auto": Model("glow", "likelihood"),
    **_FEATURES,
    **{
        name: Model(name, "classifier", trains=False)
        for name in method_names()
        if name not in _LIKELIHOODS and name not in _FEATURES
    },
}


def data_folder() -> Path:
    """Where the real images are.

    Raises:
        SystemExit: `DRACONES_TEST_DATA` names no folder.
    """
    folder = Path(os.environ.get("DRACONES_TEST_DATA", ""))
    if not os.environ.get("DRACONES_TEST_DATA") or not folder.is_dir():
        raise SystemExit("DRACONES_TEST_DATA names no folder of data sets")
    return folder


def images_of(family: Family, part: Literal["fit", "score"]) -> tuple[np.ndarray, np.ndarray | None]:
    """Real images ``[N, C, H, W]`` uint8, with the classes of those that a guard is fitted on."""
    file = _SETS[family][part == "score"]
    count = SCORED if part == "score" else _FITTED[family]
    found = open_images(str(data_folder() / file))
    # The files are sorted by class: every k-th image.
    places = range(0, len(found), len(found) // count)[:count]
    labels = found.labels if family == "classifier" and part == "fit" else None
    images = np.stack([np.asarray(found.read_native(i)) for i in places])
    return images, None if labels is None else np.asarray(labels)[list(places)]


def images_to_measure(family: Family, count: int = 400) -> np.ndarray:
    """Other real images of the test part ``[N, C, H, W]`` uint8, more of them: shares of verdicts need that."""
    found = open_images(str(data_folder() / _SETS[family][1]))
    step = len(found) // count
    return np.stack([np.asarray(found.read_native(i * step + step // 2)) for i in range(count)])


def options_of(model: Model) -> dict[str, Any]:
    """The options of a model with those that its family brings."""
    data = data_folder()
    given: dict[str, Any] = {**(_TINY if model.trains else {}), **model.options}
    if model.family == "features":
        weights = data / "backbones" / "resnet18_tv_layer123_fp16.safetensors"
        given = {"backbone": "resnet18", "weights": str(weights), "size": (128, 128), "cache": False, **given}
    if model.family == "classifier":
        from benchmarks.classifiers.networks import MEAN, STD

        given = {"classifier": _classifier(), "mean": MEAN, "std": STD, **given}
    return given


def fitted(name: str, kept: Path | None = None, *, epochs: int | None = None) -> Detector:
    """The model fitted and calibrated, from the folder `kept` where it is there already.

    Args:
        name: among `MODELS`.
        kept: folder of fitted models.
        epochs: of those that train; one is enough to compare files, and too little to say what rounding does to a flow.
    """
    model = MODELS[name]
    ending = "" if epochs is None else f"_{epochs}"
    file = None if kept is None else kept / f"{name.replace(', ', '_')}{ending}.safetensors"
    options = options_of(model)
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    if file is not None and file.exists():
        return dracones.load(file, **({"classifier": _classifier()} if model.family == "classifier" else {}))
    detector = dracones.create(model.method, calibration_share=0.3, false_alarm_rate=0.1, **options)
    images, labels = images_of(model.family, "fit")
    tensor = torch.from_numpy(images)
    if labels is None:
        detector.fit(tensor)
    else:
        detector.fit(torch.utils.data.TensorDataset(tensor, torch.from_numpy(labels)))
    if file is not None:
        detector.save(file)
    return detector


def _classifier() -> torch.nn.Module:
    from safetensors.torch import load_file

    from benchmarks.classifiers.networks import resnet20

    network = resnet20().eval()
    network.load_state_dict(load_file(data_folder() / "classifiers" / "cifar10_resnet20_akamaster.safetensors"))
    return network
