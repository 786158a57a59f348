"""Guards on files: labels from class folders, and the pretrained network on real images."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dracones
from dracones.methods.guards import ClassifierProbe
from dracones.metrics import auroc


def test_labels_of_class_folders_stay_with_their_images(tiny, tmp_path):
    """An unreadable image in between must not shift the labels of those after it."""
    pixels = (tiny.images(24) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for i, array in enumerate(pixels):
        folder = tmp_path / f"class{i % 4}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / f"{i:02}.png")
    (tmp_path / "class1" / "00.png").write_bytes(b"broken")
    guard = dracones.create("mahalanobis", classifier=tiny.TinyNet(), calibration_share=0.0).fit(tmp_path)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    features = ClassifierProbe(tiny.TinyNet())(x).features
    means = torch.stack([features[k::4].mean(0) for k in range(4)])
    score = guard.method
    expected = (means - score.origin) @ score.whiten.T
    torch.testing.assert_close(score.centres, expected, rtol=1e-2, atol=1e-2)


def decoded(path, every):
    archive = np.load(path)
    data, offsets, labels = archive["data"], archive["offsets"], archive["labels"]
    chosen = range(0, len(labels), every)
    images = [Image.open(io.BytesIO(data[offsets[i] : offsets[i + 1]].tobytes())) for i in chosen]
    return np.stack([np.asarray(image.convert("RGB")) for image in images]), labels[list(chosen)]


@pytest.mark.data
def test_pretrained_network_knows_cifar10_and_its_guards_know_what_is_not(test_data):
    path = Path(__file__).parents[3] / "benchmarks" / "classifiers" / "networks.py"
    spec = importlib.util.spec_from_file_location("networks", path)
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    net = networks.resnet20()
    net.load_state_dict(load_file(test_data / "classifiers/cifar10_resnet20_akamaster.safetensors"))
    normal, labels = decoded(test_data / "cifar10/cifar10_test_lossless.npz", 40)
    near, _ = decoded(test_data / "cifar100/cifar100_test_lossless_5k.npz", 20)
    options = {"classifier": net, "mean": networks.MEAN, "std": networks.STD, "calibration_share": 0.5}
    guard = dracones.create("energy", **options).fit(normal)
    logits = guard.method.probe(torch.from_numpy(normal).permute(0, 3, 1, 2).float() / 255).logits
    assert (logits.argmax(1).numpy() == labels).mean() > 0.88  # 91.73 % on all 10,000
    scores = np.concatenate([guard.predict(normal).scores, guard.predict(near).scores])
    assert auroc(scores, np.repeat([0, 1], 250)) > 0.84
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    odin = dracones.create("odin", epsilon=0.002, **options).fit(normal)
    scores = np.concatenate([odin.predict(normal[:100]).scores, odin.predict(noise).scores])
    assert auroc(scores, np.repeat([0, 1], [100, 50])) > 0.9
