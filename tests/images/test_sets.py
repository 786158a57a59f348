"""torchvision's sets from local files: idx, CIFAR's pickles, SVHN's Matlab files; nothing in them is ever run."""

import gzip
import io
import pickle
import struct
import time

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dracones.images import Limits, UnreadableImage, open_images
from dracones.images.formats.cifar import read_pickled_arrays
from dracones.images.formats.matlab import read_matlab_arrays


def idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("t10k", 4)):
        images, labels = rng.integers(0, 256, (count, 7, 5)).astype(np.uint8), np.arange(count, dtype=np.uint8)
        (raw / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (raw / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_idx_by_folder_by_split_and_by_file(mnist):
    train = open_images(f"{mnist}/MNIST:train")
    assert train.read(0).shape == (1, 7, 5)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(open_images(f"{mnist}/MNIST/raw:test")) == 4
    packed = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    alone = open_images(packed)
    assert alone.labels.tolist() == [0, 1, 2, 3]
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert torch.equal(open_images(packed.with_suffix("")).to_tensor(), alone.to_tensor())


def test_idx_agrees_with_torchvision(mnist):
    from torchvision.datasets import MNIST
    from torchvision.transforms.functional import to_tensor

    raw = mnist / "MNIST" / "raw"
    for packed in raw.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    theirs = MNIST(str(mnist), train=False, download=False)
    ours = open_images(f"{mnist}/MNIST:test")
    assert torch.equal(ours.to_tensor(), torch.stack([to_tensor(image) for image, _ in theirs]))
    assert ours.labels.tolist() == theirs.targets.tolist()
    assert torch.equal(open_images(theirs).to_tensor(), ours.to_tensor())


def test_splits_have_to_be_named(mnist):
    with pytest.raises(ValueError, match=r"has several parts; name one: .*MNIST:train, .*MNIST:test"):
        open_images(mnist / "MNIST")
    with pytest.raises(ValueError, match=r"has no part 'valid'; name one: .*MNIST:train"):
        open_images(f"{mnist}/MNIST:valid")
    with pytest.raises(ValueError, match=r"holds no image files, but sets; name one: .*MNIST:train"):
        open_images(mnist)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file of unsigned bytes"),
        (b"\x00\x00\x0d\x03" + b"\0" * 40, "no idx file of unsigned bytes"),
        (idx(np.zeros((3, 4, 5), np.uint8))[:-1], r"cut off: 59 of the 60 bytes its header states for \(3, 4, 5\)"),
        (idx(np.zeros((3, 4, 5), np.uint8)) + b"x", "goes on after the 60 bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, r"header states .* bytes, more than the"),
        (b"\x00\x00\x08\x03\x00\x00", "is cut off"),
        (idx(np.zeros((3,), np.uint8)), r"shape \(3,\); images \[N, H, W\] are expected"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_files(tmp_path, content, message, packed):
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=message):
        open_images(path)


def test_damaged_packing(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 9, 9)).astype(np.uint8)))
    for content in (whole[: len(whole) // 2], b"not gzip"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            open_images(path)


def test_labels_must_be_as_many(mnist):
    (mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(ValueError, match="3 labels for 6 images"):
        open_images(f"{mnist}/MNIST:train")


# ---- CIFAR


@pytest.fixture
def cifar(tmp_path):
    """Both sets, pickled as Python 2 did: protocol 2, keys and names of bytes."""
    rng = np.random.default_rng(0)

    def batch(count: int, **labels) -> dict:
        return {
            b"data": rng.integers(0, 256, (count, 3072)).astype(np.uint8),
            b"filenames": [b"a.png"] * count,
            **labels,
        }

    def dump(path, value):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(value, protocol=2))

    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    for i in range(1, 6):
        dump(ten / f"data_batch_{i}", batch(3) | {b"labels": [i, 0, 9]})
    dump(ten / "test_batch", batch(2) | {b"labels": [1, 2]})
    dump(ten / "batches.meta", {b"label_names": [f"name{i}".encode() for i in range(10)], b"num_vis": 3072})
    dump(hundred / "train", batch(4) | {b"fine_labels": [99, 1, 2, 3], b"coarse_labels": [0, 0, 0, 0]})
    dump(hundred / "test", batch(2) | {b"fine_labels": [4, 5], b"coarse_labels": [0, 0]})
    dump(hundred / "meta", {b"fine_label_names": [f"fine{i}".encode() for i in range(100)]})
    return tmp_path


def test_cifar_ten_and_hundred(cifar):
    train = open_images(f"{cifar}/cifar-10-batches-py:train")
    assert train.to_tensor().shape == (15, 3, 32, 32)
    assert train.labels[:4].tolist() == [1, 0, 9, 2]
    assert train.classes[3] == "name3"
    hundred = open_images(f"{cifar}/cifar-100-python:train")
    assert hundred.labels.tolist() == [99, 1, 2, 3]
    assert hundred.classes[99] == "fine99"
    with pytest.raises(
        ValueError, match=r"holds no image files, but sets; name one: .*cifar-10-batches-py:train.*cifar-100-"
    ):
        open_images(cifar)
    raw = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes())[b"data"]  # noqa: S301
    first = torch.from_numpy(raw[0].reshape(3, 32, 32)) / 255
    assert torch.equal(open_images(f"{cifar}/cifar-10-batches-py:test").read(0), first)


def test_arrays_pickled_by_newer_pythons_are_read(tmp_path):
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "x": np.float32([1.5]), "n": None}
    for protocol in (2, 3, 4):
        (tmp_path / "p").write_bytes(pickle.dumps(value, protocol=protocol))
        read = read_pickled_arrays(tmp_path / "p", Limits())
        assert np.array_equal(read["data"], value["data"])
        assert read["labels"] == [1, 2]


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(marker):
    import os
    import subprocess

    huge = Runs(np.empty((0,)).__reduce__()[0], np.ndarray, (10**15,), b"b")
    return {
        "os": (Runs(os.mkdir, str(marker)), "asks for posix.mkdir"),
        "subprocess": (
            Runs(subprocess.check_call, ["touch", str(marker)]),
            "asks for (subprocess|commands).check_call",
        ),
        "eval": (Runs(eval, f"open({str(marker)!r}, 'w')"), "asks for builtins.eval|asks for __builtin__.eval"),
        "getattr": (Runs(getattr, np.ndarray, "tofile"), "asks for .*getattr"),
        "huge": (huge, r"builds an array of shape \(1000000000000000,\)"),
        "objects": (np.array([{"a": 1}], dtype=object), "array of type 'O8'"),
    }


@pytest.mark.parametrize("what", ["os", "subprocess", "eval", "getattr", "huge", "objects"])
def test_a_pickle_that_wants_more_is_refused_and_not_run(tmp_path, what):
    marker = tmp_path / "marker"
    value, message = attacks(marker)[what]
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": value, b"labels": []}, protocol=2))
    with pytest.raises(ValueError, match=message):
        open_images(f"{tmp_path}:test")
    assert not marker.exists()


def test_a_pickle_that_stores_far_away_is_refused_at_once(tmp_path):
    """Python's unpickler would set aside sixteen bytes for each number up to the one that is named."""
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(ValueError, match="stores value 2,147,483,647 after 2 instructions"):
        open_images(f"{tmp_path}:test")


def shared_dictionaries(depth=64):
    """A dictionary that holds the one before twice, and so on: some hundred bytes, copied naively for ever."""
    inner = {b"data": 0}
    for _ in range(depth):
        inner = {b"a": inner, b"b": inner}
    return pickle.dumps(inner, protocol=2)


def test_shared_dictionaries_are_not_copied_for_ever(cifar):
    batch = next(cifar.rglob("test_batch"))
    batch.write_bytes(shared_dictionaries())
    assert batch.stat().st_size < 2000
    started = time.monotonic()
    with pytest.raises(ValueError, match="is no CIFAR batch"):
        open_images(f"{batch.parent}:test")
    assert time.monotonic() - started < 5


def test_a_pickles_state_reaches_nothing_of_ours(tmp_path):
    """BUILD after a name sets attributes of what the name stands for; ours have none to set."""
    for module, name in (("numpy", "dtype"), ("_codecs", "encode"), ("numpy.core.multiarray", "_reconstruct")):
        state = b"}(X\x0c\x00\x00\x00__defaults__(X\x02\x00\x00\x00u8tu"
        path = tmp_path / "batch"
        path.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + state + b"b.")
        with pytest.raises(ValueError, match="no pickle of arrays"):
            read_pickled_arrays(path, Limits())


@pytest.mark.parametrize("labels", [[[0] * 4] * 4, ["a"] * 4, [0.5] * 4, {"a": 1}, [0] * 3])
def test_labels_are_whole_numbers_one_for_each(cifar, labels):
    batch = next(cifar.rglob("test_batch"))
    count = len(open_images(f"{batch.parent}:test"))
    labels = (labels * count)[:count] if isinstance(labels, list) and len(labels) == 4 else labels
    batch.write_bytes(pickle.dumps({b"data": np.zeros((count, 3072), np.uint8), b"labels": labels}))
    with pytest.raises(ValueError, match="a whole number for each"):
        open_images(f"{batch.parent}:test")


def test_damaged_cifar_batches(cifar):
    path = cifar / "cifar-10-batches-py" / "test_batch"
    whole = path.read_bytes()
    for content, message in (
        (whole[:500], "no pickle of arrays that can be read"),
        (b"", "no pickle of arrays"),
        (pickle.dumps([1, 2]), "holds a list; a CIFAR batch is a dictionary"),
        (pickle.dumps({"data": np.zeros((2, 10), np.uint8)}, protocol=2), r"'data' must be uint8 \[N, 3072\]"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, protocol=2), "'labels' or 'fine_labels'"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_images(f"{cifar}/cifar-10-batches-py:test")


# ---- SVHN


def test_svhn(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5)).astype(np.uint8)
    for split in ("train", "extra"):
        scipy.io.savemat(
            tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.array([[1], [10], [3], [9], [10]], np.uint8)}
        )
    opened = open_images(f"{tmp_path}:extra")
    assert opened.labels.tolist() == [1, 0, 3, 9, 0]
    assert torch.equal(opened.read(2), torch.from_numpy(images[..., 2]).permute(2, 0, 1) / 255)
    assert len(open_images(tmp_path / "train_32x32.mat")) == 5
    with pytest.raises(ValueError, match=r"name one: .*:train, .*:extra"):
        open_images(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_arrays_agree_with_scipy(tmp_path, compressed):
    rng = np.random.default_rng(0)
    values = {
        "bytes": rng.integers(0, 256, (4, 5, 3, 2)).astype(np.uint8),
        "floats": rng.random((3, 2)),
        "small": np.array([[1, 2]], np.uint8),
        "a_rather_long_name": np.arange(6, dtype=np.int32).reshape(2, 3),
        "none": np.zeros((0, 3)),
        "text": "hello",
        "cells": np.array([1, "a"], dtype=object),
        "complex": np.array([[1 + 2j]]),
    }
    scipy.io.savemat(tmp_path / "a.mat", values, do_compression=compressed)
    theirs, ours = scipy.io.loadmat(tmp_path / "a.mat"), read_matlab_arrays(tmp_path / "a.mat", Limits())
    assert set(ours) == set(values)
    for name in ("bytes", "floats", "small", "a_rather_long_name", "none"):
        assert ours[name].dtype == theirs[name].dtype
        assert np.array_equal(ours[name], theirs[name])
    assert [name for name, value in ours.items() if value is None] == ["text", "cells", "complex"]


def test_damaged_svhn(tmp_path):
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"Z": np.zeros(3)})
    with pytest.raises(ValueError, match="expected the arrays X and y; it holds Z"):
        open_images(path)
    scipy.io.savemat(path, {"X": np.zeros((4, 4, 3, 2)), "y": np.zeros((2, 1))})
    with pytest.raises(ValueError, match=r"X is float64 of shape \(4, 4, 3, 2\); expected uint8"):
        open_images(path)
    for strange, message in (
        (1.5, "y holds 1.5"),
        (np.nan, "y holds nan"),
        (25, "y holds 25; expected digits from 0 to 10"),
    ):
        scipy.io.savemat(path, {"X": np.zeros((4, 4, 3, 2), np.uint8), "y": np.array([[strange], [2]])})
        with pytest.raises(ValueError, match=message):
            open_images(path)
    for compressed in (False, True):
        scipy.io.savemat(path, {"X": np.zeros((32, 32, 3, 40), np.uint8)}, do_compression=compressed)
        with pytest.raises(ValueError, match=r"more than the 1,000 (bytes )?of Limits\(max_array_bytes"):
            open_images(path, limits=Limits(max_array_bytes=1000))
    whole = path.read_bytes()
    for content, message in (
        (whole[:180], "cut off"),
        (b"", "does not begin like a Matlab file"),
        (b"MATLAB 7.3 MAT-file" + bytes(200), "version 7.3"),
        (whole[:140] + bytes(8) + whole[148:], "a compressed element is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot be read as SVHN.*{message}"):
            open_images(path)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_the_bytes_arrays_or_a_refusal_come_out(tmp_path_factory, data):
    """Bytes changed at random in every kind of array file: images, or a ValueError, and never a crash."""
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    name = data.draw(st.sampled_from(sorted(SAMPLES)))
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    refusals: list[str] = []
    try:
        images = open_images(f"{folder}:test" if name == "test_batch" else folder / name)
        shapes = [image.ndim for image in read_some(images, refusals)]
    except (ValueError, TypeError) as refused:
        shapes = []
        refusals.append(str(refused))
    assert set(shapes) <= {3}
    assert all(refusals)


def read_some(images, refusals):
    for i in range(min(3, len(images))):
        try:
            yield images.read(i)
        except UnreadableImage as refused:
            refusals.append(refused.reason)


def array_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8)).astype(np.uint8)
    digits = {"X": rng.integers(0, 256, (8, 8, 3, 2)).astype(np.uint8), "y": np.array([[1], [2]], np.uint8)}

    def saved(write) -> bytes:
        stream = io.BytesIO()
        write(stream)
        return stream.getvalue()

    return {
        "images.npy": saved(lambda f: np.save(f, images)),
        "images.npz": saved(lambda f: np.savez(f, images=images, labels=np.arange(5))),
        "encoded.npz": saved(
            lambda f: np.savez(f, data=images.ravel(), offsets=np.arange(6), names=np.array([*"abcde"]))
        ),
        "plain.mat": saved(lambda f: scipy.io.savemat(f, digits)),
        "packed.mat": saved(lambda f: scipy.io.savemat(f, digits, do_compression=True)),
        "x-images-idx3-ubyte": idx(images),
        "y-images-idx3-ubyte.gz": gzip.compress(idx(images)),
        "test_batch": pickle.dumps(
            {b"data": rng.integers(0, 256, (2, 3072)).astype(np.uint8), b"labels": [1, 2]}, protocol=2
        ),
    }


SAMPLES = array_files()
