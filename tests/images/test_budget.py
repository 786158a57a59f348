"""Memory that decoding may hold: refused before it is taken, shared by all threads, given back."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from dracones.images import Limits, UnreadableImage, open_images
from dracones.images.budget import DecodingBudget, decoding_bytes
from dracones.images.reading import decode


def png(mode="RGB", size=(64, 64)):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


def test_what_never_fits_is_refused_with_the_bound():
    limits = Limits(max_decode_bytes=10_000)
    with pytest.raises(UnreadableImage, match=r"would hold about .* MiB, more than the .*max_decode_bytes"):
        decode(png(), "a.png", limits)
    assert decode(png(size=(8, 8)), "b.png", limits).shape == (8, 8, 3)


def test_a_legal_image_of_sixteen_bits_is_counted_by_its_depth():
    """11,585 squared RGBA at 16 bits took 6.6 GB of the 4 that are allowed."""
    assert decoding_bytes(11_585, 11_585, 4, 2) > Limits().max_decode_bytes
    assert decoding_bytes(11_585, 11_585, 3, 1) < Limits().max_decode_bytes


def test_two_that_fit_alone_wait_for_each_other():
    budget, limits = DecodingBudget(), Limits(max_decode_bytes=100)
    inside, most, lock = [0], [0], threading.Lock()

    def work():
        with budget.holding():
            budget.take("a", 60, limits)
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert most[0] == 1
    assert budget._taken == 0


def test_a_failure_gives_back_what_it_took():
    budget = DecodingBudget()

    def fail():
        with budget.holding():
            budget.take("a", 60, Limits(max_decode_bytes=100))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert budget._taken == 0


def test_what_does_not_fit_is_skipped_and_the_rest_is_read(tmp_path):
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small.png")
    from dracones.images import Preprocess

    images = open_images(tmp_path, limits=Limits(max_decode_bytes=100_000), preprocess=Preprocess(size=8, channels=3))
    (batch,) = images.batches(4, workers=2)
    assert batch.names == ["small.png"]
    assert [item.name for item in images.skipped] == ["large.png"]


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "many"])
def test_a_limit_is_a_whole_number_above_0(bad):
    with pytest.raises(ValueError, match="max_pixels is a whole number above 0"):
        Limits(max_pixels=bad)
