"""Maps that lie on disk are those that were added."""

import tracemalloc

import numpy as np
import pytest

from dracones.calibration.maps_on_disk import MapsOnDisk


def test_maps_of_any_size_come_back_in_any_order():
    expected = [np.random.default_rng(i).normal(size=(3 + i, 5)).astype(np.float32) for i in range(6)]
    expected[2][0, 0] = np.nan
    maps = MapsOnDisk()
    for heat in expected:
        maps.append(heat[:, ::-1])
        maps.append(heat)
    assert len(maps) == 12
    for i in (5, 0, 11, 3, -1):
        np.testing.assert_array_equal(maps[i], expected[i // 2] if i % 2 else expected[i // 2][:, ::-1])
    np.testing.assert_array_equal(maps[1:4:2][1], expected[1])
    with pytest.raises(IndexError):
        maps[12]
    assert len(list(maps)) == 12


def test_memory_holds_one():
    maps, heat = MapsOnDisk(), np.zeros((256, 256), np.float32)
    tracemalloc.start()
    for _ in range(100):
        maps.append(heat)
    for found in maps:
        assert found.shape == heat.shape
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 6 * heat.nbytes
