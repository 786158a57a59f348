"""Small images enlarged before the backbone, all alike."""

import pytest
import torch

from dracones.features import EnlargedExtractor, FeatureExtractor


@pytest.fixture(scope="module")
def backbone():
    return FeatureExtractor("resnet18", levels=(2, 3), weights="random")


def test_small_images_are_what_the_backbone_makes_of_the_enlarged_ones(backbone):
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(images, size=(64, 96), mode="bilinear", align_corners=False)
    for found, expected in zip(EnlargedExtractor(backbone, 64)(images), backbone(large), strict=True):
        torch.testing.assert_close(found, expected)


def test_large_images_pass_as_they_are(backbone):
    images = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(EnlargedExtractor(backbone, 64)(images), backbone(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_it_stands_in_for_the_extractor(backbone):
    enlarged = EnlargedExtractor(backbone, 64)
    assert enlarged.map_sizes(32, 32) == ((8, 8), (4, 4))
    assert enlarged.channels == backbone.channels
    assert enlarged.fingerprint() != EnlargedExtractor(backbone, 96).fingerprint()
    with pytest.raises(ValueError, match="side=0"):
        EnlargedExtractor(backbone, 0)
