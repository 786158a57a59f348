"""A detector of tiles scores images of any size: the highest tile, the blended map, images kept apart."""

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.detectors import Detector
from dracones.images import Tiling, open_images, tiles_of
from dracones.methods import Method, MethodInfo, Scores, registry
from feature_case import SMALL


class MeanOfTile(Method):
    """Score = mean brightness of what it is shown; no map of its own."""

    info = MethodInfo("mean-of-tile", "A test", ("Nobody",), 2024, "none", "likelihood", summary="mean")

    def build(self, image_shape):
        self.shape_built = image_shape
        self.scale = nn.Parameter(torch.ones(1))

    def fit_statistics(self, context):
        self.shapes_seen = {tuple(batch.images.shape[1:]) for batch in context.train.batches(8)}

    def forward(self, images, host=None):
        return Scores(images.mean(dim=(1, 2, 3)) * self.scale)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.METHODS._entered, "mean-of-tile", MeanOfTile)


@pytest.fixture
def detector():
    return Detector(MeanOfTile(tile=(16, 16), tile_overlap=4)).fit(torch.rand(30, 1, 40, 50))


def test_learns_from_tiles(detector):
    assert detector.method.shape_built == (1, 16, 16)
    assert detector.method.shapes_seen == {(1, 16, 16)}


def test_score_is_the_highest_tile_and_the_map_shows_it(detector):
    image = torch.zeros(1, 1, 40, 50)
    image[..., 20:30, 30:40] = 1.0
    prediction = detector.predict(image)
    tiles = tiles_of(open_images(image), Tiling(size=(16, 16), overlap=4)).to_tensor()
    assert prediction.scores[0] == pytest.approx(tiles.mean(dim=(1, 2, 3)).max().item())
    found = prediction.maps[0]
    assert found.shape == (40, 50)
    assert found[20:30, 30:40].mean() > 5 * found[:8, :8].mean() + 0.1


def test_images_of_other_sizes_are_scored_at_their_own(detector, tmp_path):
    from PIL import Image

    for i, size in enumerate([(30, 20), (8, 64)]):
        Image.fromarray(np.full(size, 128, np.uint8)).save(tmp_path / f"{i}.png")
    prediction = detector.predict(str(tmp_path))
    assert [m.shape for m in prediction.maps] == [(30, 20), (8, 64)]
    np.testing.assert_allclose(prediction.scores, 128 / 255, rtol=1e-5)
    np.testing.assert_allclose(prediction.maps[1], 128 / 255, rtol=1e-5)


def test_calibration_images_stay_whole(detector):
    assert len(detector.calibration) == 3
    assert detector.provenance["images"]["calibration"] == 3


def test_tiling_survives_the_file(detector, tmp_path):
    image = torch.rand(2, 1, 40, 50)
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    assert np.array_equal(loaded.predict(image).scores, detector.predict(image).scores)


def test_a_good_image_smaller_than_a_tile_scores_as_a_good_one():
    """Its missing part is mirrored: edges drawn out to stripes looked like nothing the detector had learnt."""
    options = {key: value for key, value in SMALL.items() if key != "size"}
    textures = torch.rand(24, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    detector = dracones.create("patchcore", **options, tile=(64, 64), memory_share=0.2).fit(textures)
    whole = detector.predict(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))).scores
    small = detector.predict(torch.rand(8, 3, 40, 50, generator=torch.Generator().manual_seed(2))).scores
    assert np.median(small) < 1.1 * np.median(whole)  # 1.47 times with edges repeated
