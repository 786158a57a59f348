"""What a room offers by name is there."""

import importlib
import pkgutil

import pytest

import dracones

ROOMS = [name for _, name, is_package in pkgutil.walk_packages(dracones.__path__, "dracones.") if is_package]


@pytest.mark.parametrize("name", ROOMS)
def test_every_name_that_a_room_offers_is_there(name):
    room = importlib.import_module(name)
    missing = [each for each in getattr(room, "__all__", ()) if not hasattr(room, each)]
    assert not missing, f"{name} offers what it does not have: {missing}"
