import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dracones.training.batches import Batches, move

IMAGES = torch.arange(24.0).reshape(8, 3)
LABELS = torch.arange(8)
SOME = torch.tensor([5, 0, 3])


class Items(Dataset):
    """Augments each item from all three global generators."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Tensor:
        return IMAGES[index] + torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002


class Whole:
    def __len__(self) -> int:
        return len(IMAGES)

    def batch(self, indices: Tensor) -> Tensor:
        return IMAGES[indices] + torch.rand(len(indices), 1)


class Listed(Dataset):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Tensor:
        raise AssertionError("asked for one item where many can be had at once")

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return list(IMAGES[indices])


def test_whole_tensors_are_indexed_without_reading_items():
    assert torch.equal(Batches(IMAGES).read(SOME), IMAGES[SOME])
    assert torch.equal(Batches(TensorDataset(IMAGES)).read(SOME), IMAGES[SOME])
    assert torch.equal(Batches(Listed()).read(SOME), IMAGES[SOME])
    for pair in ((IMAGES, LABELS), TensorDataset(IMAGES, LABELS)):
        images, labels = Batches(pair).read(SOME)
        assert torch.equal(images, IMAGES[SOME])
        assert torch.equal(labels, LABELS[SOME])


@pytest.mark.parametrize("dataset", [Items(), Whole()], ids=["items", "whole"])
def test_augmentation_depends_on_the_seed_and_on_nothing_else(dataset):
    batches = Batches(dataset)
    first = batches.read(SOME, seed=4)
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert torch.equal(batches.read(SOME, seed=4), first)
    assert not torch.equal(batches.read(SOME, seed=5), first)


def test_worker_processes_read_the_same():
    plan = [(torch.tensor([k, 7 - k]), k) for k in range(4)]
    alone = list(Batches(Items()).stream(plan))
    assert len(alone) == 4
    helped = list(Batches(Items()).stream(plan, workers=2))
    assert all(torch.equal(one, other) for one, other in zip(alone, helped, strict=True))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (DataLoader(TensorDataset(IMAGES)), "items it can ask for by index; got DataLoader"),
        (iter([1, 2]), "map-style dataset"),
        (3, "map-style dataset with a length and items by index; got int"),
    ],
)
def test_what_has_no_index_is_refused(dataset, message):
    with pytest.raises(TypeError, match=message):
        Batches(dataset)


def test_tensors_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one length; got \[7, 8\]"):
        Batches((IMAGES, LABELS[:7]))


def test_fingerprint_changes_with_the_data_and_only_then():
    changed = IMAGES.clone()
    changed[6, 2] += 1
    for kind in (lambda x: x, TensorDataset, lambda x: (x, LABELS)):
        assert Batches(kind(IMAGES)).fingerprint() == Batches(kind(IMAGES.clone())).fingerprint()
        assert Batches(kind(IMAGES)).fingerprint() != Batches(kind(changed)).fingerprint()
    assert Batches(IMAGES).fingerprint() != Batches(IMAGES.reshape(8, 1, 3)).fingerprint()
    assert Batches(IMAGES).fingerprint() != Batches(IMAGES[:7]).fingerprint()
    assert Batches(Items()).fingerprint() == Batches(Items()).fingerprint()


def test_a_dataset_may_name_its_own_fingerprint():
    class Named(Items):
        def fingerprint(self) -> str:
            return "mine"

    assert Batches(Named()).fingerprint() == "mine"


def test_move_keeps_the_structure():
    from collections import namedtuple

    pair = namedtuple("pair", "x y")
    moved = move({"a": [IMAGES, (LABELS, "name")], "b": pair(IMAGES, 3)}, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["a"][1][0].is_meta
    assert moved["a"][1][1] == "name"
    assert moved["b"].x.is_meta
    assert moved["b"].y == 3
