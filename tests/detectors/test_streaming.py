"""A stream of answers: the same from any block, on any number of threads, with what cannot be read in its place."""

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.detectors.streaming import twin
from dracones.images import Skipped, open_images


@pytest.fixture(scope="module")
def detector():
    images = np.random.default_rng(0).normal(90, 20, (60, 8, 8)).clip(0, 255).astype(np.uint8)
    made = dracones.create("glow", epochs=1, rule="typicality", density={"steps": 1, "hidden": 4}, false_alarm_rate=0.2)
    return made.fit(images, device="cpu")


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (23, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    for i in (0, 5, 6, 7, 8, 22):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    return tmp_path


def answers(detector, folder, **options):
    images = detector.adopt(open_images(str(folder)))
    return [answer for block in detector.stream(images, batch_size=4, **options) for answer in block]


def test_every_place_has_one_answer_in_order(detector, folder):
    found = answers(detector, folder)
    names = [answer.name if isinstance(answer, Skipped) else answer.path for answer in found]
    assert names == [f"{i}.png" for i in range(23)]
    assert [i for i, answer in enumerate(found) if isinstance(answer, Skipped)] == [0, 5, 6, 7, 8, 22]
    assert "not an image" in found[0].reason


def test_a_stream_taken_up_at_a_block_gives_the_same_bits(detector, folder):
    whole = answers(detector, folder)
    for start in (4, 8, 20):
        assert answers(detector, folder, start=start) == whole[start:]


@pytest.mark.parametrize("source", ["folder", "array"])
def test_threads_change_nothing_but_the_time(detector, folder, source):
    data = str(folder) if source == "folder" else np.random.default_rng(2).integers(0, 255, (23, 8, 8), dtype=np.uint8)
    images = detector.adopt(open_images(data))
    alone = list(detector.stream(images, batch_size=4))
    torch.set_num_threads(3)
    together = list(detector.stream(images, batch_size=4))
    assert torch.get_num_threads() == 3, "threads are left as they were found"
    assert together == alone


def test_what_cannot_be_read_is_recorded_by_iterate_alone(detector, folder):
    images = detector.adopt(open_images(str(folder)))
    list(detector.stream(images, batch_size=4))
    assert images.skipped == []
    assert len(list(detector.iterate(images, batch_size=4))) == 17
    assert len(images.skipped) == 6


def test_a_strict_stream_stops_at_the_first(detector, folder):
    images = detector.adopt(open_images(str(folder), strict=True))
    with pytest.raises(ValueError, match=r"0\.png: not an image"):
        list(detector.stream(images, batch_size=4))


def test_a_twin_has_modules_of_its_own_and_the_same_tensors(detector):
    other = twin(detector.pipeline)
    assert not {id(m) for m in other.modules()} & {id(m) for m in detector.pipeline.modules()}
    ours, theirs = dict(detector.pipeline.state_dict()), dict(other.state_dict())
    assert ours.keys() == theirs.keys()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
