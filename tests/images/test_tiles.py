"""Tiles cover an image, their maps blend to the whole without a seam, memory stays that of a batch."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dracones.images import Preprocess, Tiling, UnreadableImage, open_images, tiles_of

SIZES = st.integers(1, 90)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(height=SIZES, width=SIZES, tile=st.tuples(st.integers(2, 40), st.integers(2, 40)), data=st.data())
def test_a_map_of_pixels_comes_back_as_it_was(height, width, tile, data):
    tiling = Tiling(size=tile, overlap=data.draw(st.integers(0, min(tile) - 1)))
    image = torch.rand(2, height, width)
    whole = tiling.map(image, lambda tiles: tiles.sum(1), batch_size=data.draw(st.integers(1, 5)))
    assert whole.shape == (height, width)
    torch.testing.assert_close(whole, image.sum(0), rtol=0, atol=1e-5)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(length=st.integers(1, 500), size=st.integers(1, 60), data=st.data())
def test_tiles_cover_everything_and_overlap_enough(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    starts = [top for top, _ in Tiling(size=(size, size), overlap=overlap).places(length, 1)]
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    assert all(0 < b - a <= size - overlap for a, b in pairwise(starts))
    assert len(starts) == max(1, -(-(length - overlap) // (size - overlap)))


def test_no_seam_where_tiles_disagree():
    """Tiles of different level meet in a ramp: no step larger than a ramp's, where bare tiles would jump by one."""
    tiling = Tiling(size=(32, 32), overlap=16)
    count = iter(range(100))

    def score(tiles: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 32, 32), float(next(count) % 2))

    whole = tiling.map(torch.rand(1, 32, 48), score, batch_size=1)
    assert whole.min() == 0
    assert whole.max() == 1
    assert whole.diff(dim=1).abs().max() < 0.1


def test_native_depths_are_scaled_tile_by_tile():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    tiles, places = next(Tiling(size=(16, 16)).tiles(image, batch_size=3))
    assert tiles.dtype == torch.float32
    assert torch.equal(tiles[1], image[:, :16, places[1][1] : places[1][1] + 16] / 255)


def test_only_one_batch_of_tiles_at_a_time():
    sizes = []

    def score(tiles: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tiles))
        return tiles[:, 0]

    Tiling(size=(16, 16), overlap=4).map(torch.rand(1, 100, 100), score, batch_size=5)
    assert max(sizes) == 5
    assert sum(sizes) == 64


def test_a_small_image_is_mirrored():
    image = torch.rand(1, 5, 9)
    tiles, _ = next(Tiling(size=(8, 8)).tiles(image))
    assert tiles.shape == (2, 1, 8, 8)
    assert torch.equal(tiles[0, :, 5:], image[:, [3, 2, 1], :8])


@pytest.mark.parametrize(
    "arguments", [{"size": (8, 8), "overlap": 8}, {"size": (8, 8), "overlap": -1}, {"size": (0, 8)}]
)
def test_impossible_tilings(arguments):
    with pytest.raises(ValueError, match="0 <= overlap < both sides"):
        Tiling(**arguments)


def test_bad_images_and_maps():
    tiling = Tiling(size=(8, 8))
    with pytest.raises(ValueError, match=r"one image \[C, H, W\] is expected"):
        next(tiling.tiles(torch.rand(2, 1, 16, 16)))
    with pytest.raises(ValueError, match="batch_size=0"):
        next(tiling.tiles(torch.rand(1, 16, 16), batch_size=0))
    with pytest.raises(ValueError, match=r"maps of shape \(4, 4, 4\) for tiles of \(8, 8\)"):
        tiling.map(torch.rand(1, 16, 16), lambda tiles: tiles[:, 0, :4, :4])


def test_tiles_of_a_collection_leave_out_what_cannot_be_read(folder):
    images = open_images(folder, preprocess=Preprocess(channels=3))
    tiles = tiles_of(images, Tiling(size=(4, 4)))
    assert len(tiles) == 12 * 4
    assert tiles.names[:2] == ["part0.png[0,0]", "part0.png[0,4]"]
    assert {item.name for item in images.skipped} >= {"part3b.png", "part4b.jpg", "part5b.png"}
    expected = torch.stack([tiles.read(i) for i in range(len(tiles))])
    assert torch.equal(torch.cat([batch.images for batch in tiles.batches(7, workers=3)]), expected)
    assert torch.equal(expected[3], images.read(0)[:, 4:, 4:])
    with pytest.raises(UnreadableImage, match=r"part3b.png"):
        tiles_of(open_images(folder / "part3b.png", strict=True), Tiling(size=(4, 4)))
