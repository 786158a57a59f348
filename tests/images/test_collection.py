"""A collection: what can be read in order, what cannot with its reason, the same by every road."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dracones.images import Preprocess, UnreadableImage, open_images
from dracones.images.collection import ImageCollection
from dracones.images.prefetch import in_order
from dracones.images.sources import ArraySource


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_batches_hold_all_that_can_be_read_in_order(folder, workers, batch_size):
    images = open_images(folder)
    batches = list(images.batches(batch_size, workers=workers))
    names = [name for batch in batches for name in batch.names]
    assert names == [f"part{i}.png" for i in range(12)]
    assert all(len(batch.images) == batch_size for batch in batches[:-1])
    indices = np.concatenate([batch.indices for batch in batches])
    assert [images.name(int(i)) for i in indices] == names
    assert torch.equal(torch.cat([b.images for b in batches]), torch.stack([images.read(int(i)) for i in indices]))


def test_what_is_skipped_is_told_once_and_summed_up(folder):
    images = open_images(folder)
    for _ in range(2):
        list(images.batches(4))
    reasons = {item.name: item.reason for item in images.skipped}
    assert len(images.skipped) == len(reasons) == 5
    assert "truncated" in reasons["part3b.png"]
    assert reasons["part4b.jpg"] == "the file is empty"
    assert "not an image" in reasons["part5b.png"]
    assert reasons["notes.txt"] == "'.txt' files are not read as images"
    assert "without a suffix" in reasons["README"]
    summary = images.skipped_summary()
    assert summary.startswith("5 skipped: ")
    assert "1 x the file is empty (e.g. part4b.jpg)" in summary
    assert open_images(np.zeros((2, 8, 8), np.uint8)).skipped_summary() == "nothing was skipped"


def test_strict_stops_at_the_first(folder):
    images = open_images(folder, strict=True, preprocess=Preprocess(size=8, channels=3))
    with pytest.raises(UnreadableImage, match=r"part3b.png: corrupt or truncated"):
        list(images.batches(4, workers=2))


def test_views_share_one_record(folder):
    images = open_images(folder)
    list(images.subset(range(8)).with_preprocess(Preprocess(size=4)).batches(4))
    assert "part3b.png" in {item.name for item in images.skipped}


def test_a_folder_in_which_nothing_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image of .* can be read: 1 skipped: 1 x the file is empty"):
        list(open_images(tmp_path).batches(2))
    with pytest.raises(ValueError, match=r"none of the 1 images of .* can be read"):
        list(open_images(tmp_path, preprocess=Preprocess(size=8)).batches(2))


def test_an_odd_one_among_many_is_skipped_with_the_cure(folder, pixels):
    from PIL import Image

    images = open_images(folder, preprocess=Preprocess.infer(open_images(folder)))
    Image.fromarray(pixels(0, 9, 9)).save(folder / "part7.png")
    assert len(images.to_tensor()) == 11
    reason = {item.name: item.reason for item in images.skipped}["part7.png"]
    assert "9x9 pixels where 8x8 are expected" in reason
    with pytest.raises(ValueError, match=r"part7.png is \(3, 9, 9\) .*name size"):
        open_images(folder, preprocess=Preprocess()).to_tensor()


def test_dataset_gives_what_batches_give(folder):
    images = open_images(folder, preprocess=Preprocess(size=5, channels=1))
    expected = images.to_tensor()
    for limit, dtype in ((2**20, torch.uint8), (10, None)):
        dataset = images.to_dataset(memory_limit=limit)
        assert (dataset.cache.dtype if dataset.cache is not None else None) == dtype
        assert len(dataset) == 12
        assert dataset.image_shape == (1, 5, 5)
        assert torch.equal(torch.stack(list(dataset)), expected)
        assert torch.equal(torch.cat(list(DataLoader(dataset, batch_size=5))), expected)
        assert [images.name(int(i)) for i in dataset.indices] == [f"part{i}.png" for i in range(12)]
    with pytest.raises(IndexError, match="image 12 of 12"):
        dataset[12]


def test_dataset_keeps_depth_that_eight_bits_cannot_hold():
    deep = np.random.default_rng(0).integers(0, 65536, (130, 6, 6)).astype(np.uint16)
    deep[:64] = deep[:64] // 257 * 257  # on the 256 levels: the deeper ones come later
    dataset = open_images(deep).to_dataset()
    assert dataset.cache.dtype == torch.float32
    expected = torch.from_numpy(deep.astype(np.float32) / np.float32(65535))[:, None]
    assert torch.equal(torch.stack(list(dataset)), expected)
    assert open_images(deep).to_dataset(memory_limit=130 * 36 * 2).cache is None


def test_dataset_works_in_other_processes(folder):
    dataset = open_images(folder).to_dataset(memory_limit=1)
    loaded = torch.cat(list(DataLoader(dataset, batch_size=4, num_workers=1)))
    assert torch.equal(loaded, torch.stack(list(dataset)))


def test_progress_counts_every_image(folder):
    seen = []
    open_images(folder).to_dataset(progress=seen.append)
    assert sum(seen) == 12
    seen.clear()
    open_images(folder).fingerprint(progress=seen.append)
    assert sum(seen) == 15


@pytest.mark.parametrize("seed", range(5))
def test_split_is_disjoint_and_repeats(seed):
    images = open_images(np.arange(101, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2))
    parts = images.split({"a": 0.5, "b": 0.3, "c": 0.2}, seed=seed)
    drawn = [set((part.to_tensor()[:, 0, 0, 0] * 255).round().int().tolist()) for part in parts.values()]
    assert set.union(*drawn) == set(range(101))
    assert sum(map(len, drawn)) == 101
    assert [len(d) for d in drawn] == [50, 31, 20]
    again = images.split([0.5, 0.3, 0.2], seed=seed)
    assert [part.names for part in again] == [part.names for part in parts.values()]
    assert images.split([0.5], seed=seed + 1)[0].names != again[0].names


def test_split_refuses_what_cannot_be():
    images = open_images(np.zeros((5, 8, 8), np.uint8))
    for shares in ([0.6, 0.6], [-0.1], [0.0, 1.0], [float("nan")]):
        with pytest.raises(ValueError, match="must be positive and sum to at most 1"):
            images.split(shares)
    with pytest.raises(ValueError, match="5 images are too few"):
        images.split([0.99, 0.01])


def test_subset_by_index_by_mask_and_beyond():
    images = open_images(
        np.arange(6, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2), labels=[0, 1, 2, 3, 4, 5]
    )
    assert images.subset([5, 0, -1]).labels.tolist() == [5, 0, 5]
    assert images.subset(images.labels > 3).names == ["ndarray[4]", "ndarray[5]"]
    assert images.subset(torch.tensor([1, 3])).subset([1]).labels.tolist() == [3]
    assert len(images.subset([])) == 0
    assert list(images.subset([]).with_preprocess(Preprocess()).batches(3)) == []
    with pytest.raises(IndexError, match="indices from 6 to 6 in a collection of 6"):
        images.subset([6])
    with pytest.raises(ValueError, match="a mask of shape"):
        images.subset(np.ones(5, bool))
    with pytest.raises(IndexError, match="image 6 of a collection of 6"):
        images.read(6)


def test_fingerprint_is_of_content_and_order_alone(folder, tmp_path):
    prints = open_images(folder).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    images = open_images(moved)
    assert images.fingerprint() == prints
    assert images.with_preprocess(Preprocess(size=4)).fingerprint() == prints
    assert images.subset(range(len(images))[::-1]).fingerprint() != prints
    content = bytearray((moved / "part2.png").read_bytes())
    content[60] ^= 1
    (moved / "part2.png").write_bytes(content)
    assert open_images(moved).fingerprint() != prints
    assert open_images(moved).fingerprint(workers=2) == open_images(moved).fingerprint()
    a = np.zeros((2, 8, 8), np.uint8)
    assert open_images(a).fingerprint() == open_images(torch.from_numpy(a)).fingerprint()
    assert open_images(a).fingerprint() != open_images(a.astype(np.float32)).fingerprint()
    assert open_images(a).fingerprint() != open_images(a[:1]).fingerprint()


def test_sixteen_bit_reaches_the_tensor_whole(tmp_path):
    from PIL import Image

    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024 + 3
    Image.fromarray(deep).save(tmp_path / "a.png")
    images = open_images(tmp_path)
    assert torch.equal(images.read(0)[0], torch.from_numpy(deep.astype(np.float32)) / 65535)
    assert images.read_native(0).dtype == torch.uint16
    resized = open_images(tmp_path, preprocess=Preprocess(size=4)).read(0)
    assert torch.equal((resized * 65535).round() / 65535, resized)
    assert not torch.equal((resized * 255).round() / 255, resized)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path, pixels):
    """Peak memory of reading 60 files is that of reading 15: two batches, whatever the set's size."""
    from PIL import Image

    for i in range(60):
        Image.fromarray(pixels(i, 64, 64)).save(tmp_path / f"{i}.bmp")

    def peak(count: int) -> int:
        images = open_images([tmp_path / f"{i}.bmp" for i in range(count)])
        tracemalloc.start()
        for _ in images.batches(2, workers=2):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(4)
    assert peak(60) < 1.5 * peak(15)


def test_prefetch_never_runs_ahead_of_its_bound():
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item

    for done, item in enumerate(in_order(work, range(40), workers=3, ahead=5)):
        assert item == done
        assert len(started) <= done + 6


def test_stopping_half_way_ends_the_threads(folder):
    import threading

    before = threading.active_count()
    batches = open_images(folder).batches(2, workers=3)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_arguments_are_checked():
    images = open_images(np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="batch_size=0"):
        images.batches(0)
    with pytest.raises(ValueError, match="workers=-1"):
        images.batches(1, workers=-1)


def test_repr_names_the_source(folder):
    assert repr(open_images(folder)) == "ImageCollection('parts', 15 images, as they are)"
    assert Path(folder).name in open_images(folder).name_of_source


def test_a_source_that_gives_some_blocks_and_not_others_is_named():
    class Halfway(ArraySource):
        def block(self, indices):
            return super().block(indices) if len(indices) == 1 else None

    source = Halfway(np.zeros((4, 8, 8, 3), np.uint8), name="halfway")
    with pytest.raises(TypeError, match=r"Halfway\.block gave the first image and none of 4 others"):
        next(iter(ImageCollection(source, preprocess=Preprocess()).batches(4)))
