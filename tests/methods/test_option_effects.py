"""Every option of a method on features or of a guard changes scores or maps: one value beside another."""

import json
import warnings
from functools import cache

import pytest
import torch

import dracones
import feature_case
import tiny_classifier
from dracones.methods import MethodConfig, method_class, method_names

FAST = {"epochs": 2, "batch_size": 4, "learning_rate": 0.02, "restore_best": False}
SHOWN_ELSEWHERE = {
    "preset": "what presets fill in: tests/methods/test_on_features.py",
    "training": "tests/detectors/test_options.py, field by field",
    "cache": "tests/features/test_cache.py",
    "cache_gigabytes": "tests/features/test_cache.py",
    "backbone": "the network itself, named in every test here",
    "weights": "tests/features/test_weights.py",
}
ON_FEATURES = {
    "levels": ({}, (1, 2), (1,)),
    "precision": ({}, "fp32", "bf16"),
}
OF_A_MAP = {
    "image_score": ({}, "top", "max"),
    "top_share": ({"image_score": "top"}, 0.003, 0.5),
}
# method -> what makes it small, and field -> (options under which it matters, one value, another)
FEATURES = {
    "cflow": (
        {"steps": 2, "chunks": 2, **FAST},
        {
            **OF_A_MAP,
            "steps": ({}, 2, 1),
            "position_dims": ({}, 128, 8),
            "clamp": ({}, 1.9, 0.1),
            "mixing": ({}, "permutation", "rotation"),
            "heat": ({}, "probability", "likelihood"),
            "chunks": ({}, 2, 1),
        },
    ),
    "csflow": (
        {"scales": 2, "hidden": 8, "kernels": (3,), "levels": (2,), **FAST},
        {
            "levels": ({}, (2,), (1,)),
            "image_score": ({}, "mean", "max"),
            "top_share": ({"image_score": "top"}, 0.003, 0.5),
            "scales": ({}, 2, 3),
            "pyramid": ({}, "bilinear", "nearest"),
            "padding": ({}, "zeros", "reflect"),
            "kernels": ({}, (3,), (5,)),
            "hidden": ({}, 8, 4),
            "clamp": ({}, 3.0, 0.1),
        },
    ),
    "differnet": (
        {
            "levels": (2,),
            "blocks": 2,
            "hidden": 8,
            "scales": 1,
            "training_rotations": 2,
            "rotations": 2,
            "map_rotations": 1,
            **FAST,
        },
        {
            "levels": ({}, (2,), (1,)),
            "scales": ({}, 1, 2),
            "pyramid": ({"scales": 2}, "bilinear", "nearest"),
            "blocks": ({}, 2, 1),
            "hidden": ({}, 8, 4),
            "clamp": ({}, 3.0, 0.1),
            "scaling": ({}, "actnorm", "whitening"),
            "ridge": ({"scaling": "whitening"}, 0.01, 1.0),
            "training_rotations": ({"rotations": 1}, 2, 1),
            "rotations": ({}, 2, 1),
            "map_rotations": ({}, 1, 2),
            "blur_sigma": ({}, 3.0, 1.0),
        },
    ),
    "embedding_flow": (
        {"couplings": 2, "hidden": 8, **FAST},
        {
            "pooling": ({}, ("mean",), ("mean", "max")),
            "scales": ({"levels": (2,)}, 1, 2),
            "ridge": ({}, 0.01, 1.0),
            "couplings": ({}, 2, 1),
            "hidden": ({}, 8, 4),
            "layers": ({}, 1, 2),
            "dropout": ({"layers": 2}, 0.0, 0.5),
        },
    ),
    "fastflow": (
        {"steps": 2, "normalisation": "image", "padding": "zeros", "heat": "probability", **FAST},
        {
            **OF_A_MAP,
            "steps": ({}, 2, 1),
            "kernels": ({}, "3", "3-1"),
            "hidden_ratio": ({}, 1.0, 0.5),
            "clamp": ({}, 2.0, 0.1),
            "heat": ({}, "probability", "likelihood"),
            "normalisation": ({}, "image", "whitening"),
            "ridge": ({"normalisation": "whitening"}, 0.01, 1.0),
            "padding": ({}, "zeros", "reflect"),
        },
    ),
    "msflow": (
        {"steps": (1, 1), "fusion_hidden": 4, **FAST},
        {
            **OF_A_MAP,
            "levels": ({"padding": "zeros"}, (1, 2), (2, 3)),
            "steps": ({}, (1, 1), (1, 2)),
            "position_dims": ({}, 64, 8),
            "clamp": ({}, 1.9, 0.1),
            "fusion_hidden": ({}, 4, 8),
            "padding": ({}, "zeros", "reflect"),
        },
    ),
    "padim": (
        {"dimensions": 8},
        {
            **OF_A_MAP,
            "dimensions": ({}, 8, 4),
            "ridge": ({}, 0.01, 1.0),
            "blur_sigma": ({}, 4.0, 1.0),
        },
    ),
    "patchcore": (
        {"memory_share": 0.1},
        {
            **OF_A_MAP,
            "memory_share": ({}, 0.1, 0.5),
            "memory_limit": ({}, 20_000, 3),
            "projection": ({}, 128, 2),
            "neighbours": ({"score": "patch"}, 9, 2),
            "score": ({}, "map", "patch"),
            "blur_sigma": ({}, 4.0, 1.0),
        },
    ),
    "ensemble": (
        {"made_defects": 20, "size": (64, 64), "levels": (1, 2, 3), "memory_share": 0.1, "flow_epochs": 1},
        {
            **OF_A_MAP,
            "levels": ({}, (1, 2, 3), (1, 2)),
            "witnesses": ({}, ("whole", "place", "patch"), ("whole", "place")),
            "weighting": ({}, "made_defects", "equal"),
            "scales": ({}, 3, 1),
            "memory_share": ({}, 0.1, 0.5),
            "flow_epochs": ({"witnesses": ("whole", "flow")}, 1, 2),
        },
    ),
}
WITH_A_CLASSIFIER = {
    "mean": ({"std": (0.5, 0.5, 0.5)}, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)),
    "std": ({"mean": (0.5, 0.5, 0.5)}, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)),
}
TOLD = {
    "classifier": "tests/methods/guards/test_loading.py",
    "classifier_weights": "tests/methods/guards/test_loading.py",
    "accelerate": "the same scores by design: tests/methods/guards/test_acceleration.py",
    "output": "classifiers of several outputs: tests/methods/guards/test_probe.py",
    "layer": "tests/methods/guards/test_probe.py",
}
GUARDS = {
    "ash": {"percentile": ({}, 0.9, 0.5), "variant": ({}, "s", "b")},
    "dice": {"sparsity": ({}, 0.9, 0.5)},
    "energy": {"temperature": ({}, 1.0, 5.0)},
    "entropy": {},
    "feature_density": {
        "normalize": ({}, True, False),
        "couplings": ({}, 2, 1),
        "hidden": ({}, 8, 4),
        "epochs": ({}, 1, 2),
        "batch_size": ({}, 8, 4),
        "learning_rate": ({}, 1e-3, 1e-2),
    },
    "gen": {"gamma": ({}, 0.1, 0.5), "top": ({}, 100, 2)},
    "knn": {"k": ({}, 5, 2), "normalize": ({}, True, False), "share": ({}, 1.0, 0.2)},
    "mahalanobis": {"ridge": ({}, 1e-6, 1.0)},
    "max_logit": {},
    "msp": {"temperature": ({}, 1.0, 5.0)},
    "odin": {
        "temperature": ({}, 1000.0, 2.0),
        "epsilon": ({}, 0.0, 0.01),
    },
    "react": {"percentile": ({}, 0.9, 0.5)},
    "relative_mahalanobis": {"ridge": ({}, 1e-6, 1.0)},
    "residual": {"dimensions": ({}, 4, 2)},
    "scale": {"percentile": ({}, 0.85, 0.5)},
    "vim": {"dimensions": ({}, 4, 2)},
}
SMALL_GUARDS = {
    "feature_density": {"couplings": 2, "hidden": 8, "batch_size": 8, "width": 8},
    "knn": {"k": 5},
    "odin": {"epsilon": 0.0},
    "residual": {"dimensions": 4},
    "vim": {"dimensions": 4},
}
SEEN_ELSEWHERE = {
    # where a witness fails: test_witness_failures.py; of more images than are made here: test_ensemble.py
    "ensemble": {"keep_going", "made_defects"},
    "feature_density": {"width"},  # found while fitting
    "fastflow": {"images_at_once"},  # learns the same however many: feature_flows/test_by_parts.py
    "odin": {"gradient_precision", "tuning_images"},  # guards/test_acceleration.py, guards/test_odin.py
    "patchcore": {"put_forward"},  # of many more patches than are made here: memories/test_patchcore.py
}


def own(name):
    return set(method_class(name).Config.model_fields) - set(MethodConfig.model_fields)


def of_family(*families):
    return [name for name in method_names() if method_class(name).info.family in families]


def test_the_tables_name_every_option_of_every_method():
    for name in of_family("feature flow", "feature memory"):
        elsewhere = SHOWN_ELSEWHERE.keys() & own(name)  # memories have no training
        assert own(name) == {*ON_FEATURES, *FEATURES[name][1], *elsewhere, *SEEN_ELSEWHERE.get(name, ())}, name
    for name in of_family("classifier"):
        assert own(name) == {*WITH_A_CLASSIFIER, *GUARDS[name], *TOLD, *SEEN_ELSEWHERE.get(name, ())}, name


@cache
def what_features_show(name, options):
    images = feature_case.normals(12, side=32)
    small = {**feature_case.SMALL, "size": (32, 32), **FEATURES[name][0], **json.loads(options)}
    detector = dracones.create(name, seed=0, **small).fit(images)
    seen = detector.predict(feature_case.anomalies(2, side=32)[0])
    maps = [] if seen.maps is None else [each.tolist() for each in seen.maps]
    return seen.scores.tolist(), maps


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name in of_family("feature flow", "feature memory")
        for field in {**ON_FEATURES, **FEATURES[name][1]}
    ],
)
def test_an_option_of_a_method_on_features_shows(name, field):
    around, one, other = {**ON_FEATURES, **FEATURES[name][1]}[field]
    first, second = (what_features_show(name, json.dumps({**around, field: value})) for value in (one, other))
    assert first != second


@cache
def what_a_guard_shows(name, options):
    chosen = {**SMALL_GUARDS.get(name, {}), **json.loads(options)}
    guard = dracones.create(name, classifier=tiny_classifier.TinyNet(), seed=0, **chosen)
    images = tiny_classifier.images(40)
    labels = torch.arange(40) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a classifier of sines is right by chance alone, and says so
        guard.fit(images, labels=labels)
    return guard.predict(tiny_classifier.images(6) * 0.7).scores.tolist()


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in of_family("classifier") for field in {**WITH_A_CLASSIFIER, **GUARDS[name]}],
)
def test_an_option_of_a_guard_shows(name, field):
    around, one, other = {**WITH_A_CLASSIFIER, **GUARDS[name]}[field]
    assert what_a_guard_shows(name, json.dumps({**around, field: one})) != what_a_guard_shows(
        name, json.dumps({**around, field: other})
    )
