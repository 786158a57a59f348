"""What is run: each method with its own settings at a cost one CPU core can pay, fixed before a test image is seen."""

from typing import Any

from benchmarks.inspection.sets import data_root

BACKBONES: dict[str, dict[str, Any]] = {
    "resnet18": {"backbone": "resnet18", "file": "resnet18_tv_layer123_fp16"},
    "mobilenetv1_075": {"backbone": "mobilenetv1_075", "file": "mobilenetv1_075_tf_fp16"},
    "mobilenet_v2": {"backbone": "mobilenet_v2", "file": "mobilenet_v2_tv_features_fp16"},
    "squeezenet1_1": {"backbone": "squeezenet1_1", "file": "squeezenet1_1_fp16"},
    "packaged": {"backbone": "tf_efficientnet_lite0", "file": None},
}

COMMON: dict[str, Any] = {"validation_share": 0.0, "calibration_share": 0.0, "precision": "auto", "size": (256, 256)}

# Everything not named here is the method's balanced preset.
METHODS: dict[str, dict[str, Any]] = {
    "padim": {},
    "patchcore": {"memory_share": 0.005},
    "fastflow": {"preset": "fast"},
    "cflow": {"preset": "fast"},
    "differnet": {"preset": "fast"},
    "csflow": {"preset": "fast"},
    "embedding_flow": {},
    "msflow": {"preset": "fast"},
    "ensemble": {"validation_share": 0.2},
}


def options(method: str, backbone: str, seed: int) -> dict[str, Any]:
    """Options of one run."""
    known = BACKBONES[backbone]
    weights = "packaged" if known["file"] is None else str(data_root() / "backbones" / f"{known['file']}.safetensors")
    return {**COMMON, **METHODS[method], "backbone": known["backbone"], "weights": weights, "seed": seed}
