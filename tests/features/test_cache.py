"""The feature cache: what it reads, when it computes anew, and two processes at once."""

import errno
import multiprocessing
import os
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dracones.features import ComputedFeatures, FeatureCache, FeatureExtractor, StoredFeatures, features_in_memory
from dracones.features import entry as entry_module
from dracones.features.entry import EntryWriter


class Images:
    """Counts how often its images are read."""

    def __init__(self, images, preprocess="none"):
        self.images = images
        self.preprocess = preprocess
        self.reads = 0

    def __len__(self):
        return len(self.images)

    def fingerprint(self, *, progress=None):
        return str(self.images.sum(dtype=torch.float64).item())

    def batches(self, batch_size):
        for places in torch.arange(len(self.images)).split(batch_size):
            chunk = self.images[places]
            self.reads += len(chunk)
            yield SimpleNamespace(images=chunk, indices=places.numpy())

    def subset(self, indices):
        view = Images(self.images[torch.as_tensor(indices)], self.preprocess)
        view.parent = self
        return view


def some_images(count=5, seed=0, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random")


def test_second_run_reads_what_the_first_computed(extractor, tmp_path):
    images = Images(some_images())
    first = FeatureCache(tmp_path).features(extractor, images, batch_size=2)
    assert images.reads == 5
    assert isinstance(first, StoredFeatures)
    again = FeatureCache(tmp_path).features(extractor, images)
    assert images.reads == 5
    assert len(again) == 5
    expected = extractor(images.images)
    for got, want in zip(again.batch(torch.tensor([3, 0])), expected, strict=True):
        torch.testing.assert_close(got, want[[3, 0]], rtol=1e-3, atol=1e-3)
        assert got.dtype == torch.float32
    assert torch.equal(again[3][0], again.batch(torch.tensor([3]))[0][0])
    assert again.levels[0].dtype == np.float16
    assert isinstance(again.levels[0], np.memmap)
    assert first.fingerprint() == again.fingerprint() != ""


@pytest.mark.parametrize("change", ["weights", "preprocessing", "content", "levels"])
def test_a_change_of_any_of_the_three_computes_anew(change, extractor, tmp_path):
    cache = FeatureCache(tmp_path)
    images = Images(some_images())
    before = cache.features(extractor, images)
    other, now = extractor, images
    if change == "weights":
        other = FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random")
        state = {key: value * 1.5 if value.ndim == 4 else value for key, value in other.state_dict().items()}
        other.load_state_dict(state)
    elif change == "levels":
        other = FeatureExtractor("mobilenetv1_025", levels=(2,), weights="random")
    elif change == "preprocessing":
        now = Images(some_images(), preprocess="resized")
    else:
        now = Images(some_images(seed=1))
    reads = now.reads
    after = cache.features(other, now)
    assert now.reads == reads + 5
    assert after.fingerprint() != before.fingerprint()
    torch.testing.assert_close(after[2][-1], other(now.images)[-1][2], rtol=2e-3, atol=2e-3)


def test_budget_drops_the_least_recently_used(extractor, tmp_path):
    one = Images(some_images(seed=1))
    FeatureCache(tmp_path).features(extractor, one)
    size = FeatureCache(tmp_path).used_bytes()
    cache = FeatureCache(tmp_path, budget_bytes=int(2.5 * size))
    two, three = Images(some_images(seed=2)), Images(some_images(seed=3))
    cache.features(extractor, two)
    time.sleep(0.01)
    cache.features(extractor, one)  # used again: two is now the oldest
    cache.features(extractor, three)
    assert cache.used_bytes() <= cache.budget_bytes
    cache.features(extractor, one)
    cache.features(extractor, two)
    assert (one.reads, two.reads) == (5, 10)


def test_what_exceeds_the_budget_is_computed_on_the_fly(extractor, tmp_path):
    cache = FeatureCache(tmp_path, budget_bytes=100)
    images = Images(some_images())
    with pytest.warns(RuntimeWarning, match=r"more than the .* allowed \(cache_gigabytes\).*anew each time"):
        features = cache.features(extractor, images)
    assert isinstance(features, ComputedFeatures)
    assert len(features) == 5
    assert cache.used_bytes() == 0
    expected = extractor(images.images)
    torch.testing.assert_close(features.batch(torch.tensor([4, 1]))[1], expected[1][[4, 1]])
    torch.testing.assert_close(features[4][0], expected[0][4])
    chunks = list(features.chunks(2))
    assert [len(chunk[0]) for chunk in chunks] == [2, 2, 1]
    assert not list(tmp_path.iterdir())


class Scaled(nn.Module):
    """Stands for a backbone whose features exceed half precision."""

    name = "scaled"
    mean = torch.zeros(1)

    def forward(self, images):
        return (images * 1e6,)

    def fingerprint(self):
        return "scaled"


def test_features_beyond_half_precision_are_kept_in_float32(tmp_path):
    images = Images(some_images())
    stored = FeatureCache(tmp_path).features(Scaled(), images, batch_size=2)
    assert stored.levels[0].dtype == np.float32
    torch.testing.assert_close(stored[1][0], images.images[1] * 1e6)


def test_features_that_are_not_finite_are_refused(tmp_path):
    images = Images(torch.full((2, 3, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        FeatureCache(tmp_path).features(Scaled(), images)
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_and_a_damaged_entry_do_no_harm(extractor, tmp_path):
    cache = FeatureCache(tmp_path)
    images = Images(some_images())

    class Killed(Images):
        def batches(self, batch_size):
            yield SimpleNamespace(images=self.images[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.features(extractor, Killed(some_images()))
    assert cache.used_bytes() == 0
    stored = cache.features(extractor, images)
    (tmp_path / stored.fingerprint() / "level0.npy").write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match=r"were damaged and are computed anew .*level0\.npy has 7 bytes"):
        again = cache.features(extractor, images)
    assert images.reads == 10
    torch.testing.assert_close(again[0][0], extractor(images.images)[0][0], rtol=1e-3, atol=1e-3)
    cache.clear()
    assert cache.used_bytes() == 0


def _flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _forget():
    """As a new process would see the cache."""
    entry_module._verified.clear()


DAMAGE = {
    "a bit of a number": lambda entry: _flip(entry / "level0.npy", -3),
    "a bit of a header": lambda entry: _flip(entry / "level1.npy", 70),
    "a level of zeros": lambda entry: (entry / "level0.npy").write_bytes(
        (entry / "level0.npy").read_bytes()[:128] + bytes((entry / "level0.npy").stat().st_size - 128)
    ),
    "a level missing": lambda entry: (entry / "level1.npy").unlink(),
    "a level cut": lambda entry: os.truncate(entry / "level1.npy", 1000),
    "facts missing": lambda entry: (entry / "entry.json").unlink(),
    "facts empty": lambda entry: (entry / "entry.json").write_text(""),
    "facts of others": lambda entry: (entry / "entry.json").write_text("[1]"),
    "facts nested": lambda entry: (entry / "entry.json").write_text("[" * 100_000),
    "an edited count": lambda entry: (entry / "entry.json").write_text(
        (entry / "entry.json").read_text().replace('count\\":5', 'count\\":4')
    ),
    "levels swapped": lambda entry: (entry / "level0.npy").replace(entry / "level1.npy"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_and_computed_anew_and_then_gone(damage, extractor, tmp_path):
    images = Images(some_images())
    entry = tmp_path / FeatureCache(tmp_path).features(extractor, images).fingerprint()
    DAMAGE[damage](entry)
    _forget()
    with pytest.warns(RuntimeWarning, match="were damaged and are computed anew"):
        again = FeatureCache(tmp_path).features(extractor, images)
    assert images.reads == 10
    torch.testing.assert_close(again[0][0], extractor(images.images)[0][0], rtol=1e-3, atol=1e-3)
    _forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureCache(tmp_path).features(extractor, images)
    assert images.reads == 10


def test_an_entry_is_read_through_once_a_process_unless_it_changed(extractor, tmp_path, monkeypatch):
    images, seen = Images(some_images()), []
    checksum = entry_module._checksum
    monkeypatch.setattr(entry_module, "_checksum", lambda rows: seen.append(len(rows)) or checksum(rows))
    stored = FeatureCache(tmp_path).features(extractor, images)
    assert not seen  # written here
    FeatureCache(tmp_path).features(extractor, images)
    assert not seen
    _forget()
    FeatureCache(tmp_path).features(extractor, images)
    FeatureCache(tmp_path).features(extractor, images)
    assert seen == [5, 5]
    _flip(tmp_path / stored.fingerprint() / "level0.npy", -1)
    with pytest.warns(RuntimeWarning, match="were damaged"):
        FeatureCache(tmp_path).features(extractor, images)


class WithUnreadable(Images):
    """The second image of five cannot be read."""

    def batches(self, batch_size):
        for batch in super().batches(batch_size):
            readable = [i for i, image in enumerate(batch.images) if float(image.max()) >= 0]
            if readable:
                yield SimpleNamespace(images=batch.images[readable], indices=batch.indices[readable])

    def subset(self, indices):
        return WithUnreadable(self.images[torch.as_tensor(indices)], self.preprocess)


@pytest.mark.parametrize("budget", [10**9, 100])
@pytest.mark.filterwarnings("ignore:features of")
def test_an_unreadable_image_is_no_item_whether_stored_or_computed(budget, extractor, tmp_path):
    images = some_images()
    images[1] = -1
    features = FeatureCache(tmp_path, budget_bytes=budget).features(extractor, WithUnreadable(images), batch_size=2)
    assert len(features) == 4
    expected = extractor(images[[0, 2, 3, 4]])
    for got, want in zip(features.batch(torch.arange(4)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-3)
    assert len(features.batch(torch.tensor([1]))[0]) == 1


def test_a_full_disk_is_a_warning_and_no_crash(extractor, tmp_path, monkeypatch):
    images = Images(some_images())
    expected = extractor(images.images)
    writes = []

    def full(self, levels):
        writes.append(len(levels))
        if len(writes) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EntryWriter, "write", full)
    with pytest.warns(RuntimeWarning, match=r"the disk refused them \(No space left on device\)"):
        features = FeatureCache(tmp_path).features(extractor, images, batch_size=2)
    assert isinstance(features, ComputedFeatures)
    torch.testing.assert_close(features[4][0], expected[0][4])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_made_is_a_warning(extractor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="the disk refused them"):
        features = FeatureCache(tmp_path / "file" / "cache").features(extractor, Images(some_images()))
    assert len(features) == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_writes_say_that_the_disk_is_full(tmp_path):
    (tmp_path / "level0.npy").symlink_to("/dev/full")
    with (
        EntryWriter(tmp_path, [(1000, 1000)], np.dtype("f2"), 5) as out,
        pytest.raises(OSError, match="No space left"),
    ):
        out.write([np.zeros((1, 1000, 1000), np.float32)])


def test_what_killed_processes_left_is_swept_but_not_what_is_being_written(extractor, tmp_path):
    old, busy = tmp_path / ".writing-old", tmp_path / ".writing-busy"
    for folder in (old, busy):
        folder.mkdir()
        (folder / "level0.npy").write_bytes(b"half")
    hours_ago = time.time() - 7200
    for path in (old / "level0.npy", old, busy):
        os.utime(path, (hours_ago, hours_ago))
    FeatureCache(tmp_path).features(extractor, Images(some_images()))
    assert not old.exists()
    assert busy.exists()


def _fill(folder, barrier, queue):
    torch.set_num_threads(1)
    extractor = FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random")
    images = Images(some_images(12))
    barrier.wait()
    features = FeatureCache(folder).features(extractor, images, batch_size=1)
    queue.put((features.fingerprint(), float(features[7][0].sum()), features.levels[0].shape))


def test_two_processes_at_once_end_with_one_whole_entry(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_fill, args=(tmp_path, barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert results[0] == results[1]
    assert results[0][2][0] == 12
    assert [path.name for path in tmp_path.iterdir()] == [results[0][0]]


def test_negative_budget():
    with pytest.raises(ValueError, match="must not be negative"):
        FeatureCache("somewhere", budget_bytes=-1)


def test_few_images_at_a_time_on_a_cpu_unless_told(extractor, tmp_path):
    sizes = []

    class Counting(Images):
        def batches(self, batch_size):
            sizes.append(batch_size)
            return super().batches(batch_size)

    images = Counting(some_images())
    FeatureCache(tmp_path).features(extractor, images)
    features_in_memory(extractor, images)
    features_in_memory(extractor, images, batch_size=3)
    assert sizes == [4, 4, 3]
