"""Positional encoding against its formula, and as a module."""

import math

import pytest
import torch

from dracones.features import SinusoidalPosition, sinusoidal_position


def test_every_entry_follows_the_formula():
    dims, height, width = 8, 3, 5
    got = sinusoidal_position(dims, height, width)
    for channel in range(dims):
        axis, within = divmod(channel, dims // 2)
        frequency = 10000 ** (-(within - within % 2) / (dims / 2))
        wave = math.cos if within % 2 else math.sin
        for y in range(height):
            for x in range(width):
                assert got[channel, y, x] == pytest.approx(wave(frequency * (y if axis else x)), abs=1e-6)


def test_no_two_positions_share_a_code():
    codes = sinusoidal_position(128, 64, 64).flatten(1).T
    assert len(torch.unique(codes, dim=0)) == 64 * 64


def test_module_follows_size_and_is_not_saved():
    module = SinusoidalPosition(16)
    assert module(4, 6).shape == (16, 4, 6)
    first = module(4, 6)
    assert module(4, 6) is first
    assert module(2, 2).shape == (16, 2, 2)
    assert module.state_dict() == {}
    assert module.double()(3, 3).dtype == torch.float64


@pytest.mark.parametrize("dims", [0, 6, -4])
def test_bad_dims(dims):
    with pytest.raises(ValueError, match="multiple of 4"):
        SinusoidalPosition(dims)


def test_empty_map():
    with pytest.raises(ValueError, match="empty map: 0x4"):
        sinusoidal_position(4, 0, 4)
