"""The paradox itself, small: a Glow of clothes prefers digits, and its volume term does it."""

import pytest
import torch

from dracones import anatomy, densities
from dracones.images import Preprocess, open_images
from dracones.training import TrainingConfig, train


@pytest.mark.data
def test_a_glow_of_clothes_prefers_digits_and_the_volume_term_does_it(test_data):
    half = Preprocess(size=(14, 14), channels=1)

    def images(name, count, start=0):
        found = open_images(test_data / name / "raw" / "t10k-images-idx3-ubyte.gz")
        chosen = found.subset(range(start, start + count)).with_preprocess(half)
        return torch.cat([batch.images for batch in chosen.batches(256)])

    density = densities.create("glow", image_shape=(1, 14, 14), levels=1, steps=4, hidden=32)
    config = TrainingConfig(epochs=100, max_steps=80, batch_size=64, learning_rate=2e-3, clip_norm=100.0, device="cpu")
    train(density, images("FashionMNIST", 2000, start=1000), config)
    found = anatomy.decompose(density, images("FashionMNIST", 200), {"digits": images("MNIST", 200)})
    assert found.total.auroc["digits"].high < 0.5
    assert found.decisive("digits").name == "log_det"
    latent, volume = found.parts
    assert volume.auroc["digits"].value < 0.3
    assert latent.auroc["digits"].value > 0.7
