"""A tiny detector in service."""

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import dracones
from docs_world import texture
from serving_parts import SIZE, client_of, house_of


@pytest.fixture(scope="session")
def detector():
    images = np.stack([texture(i, SIZE) for i in range(100)])
    made = dracones.create(
        "padim", weights="random", backbone="resnet18", size=SIZE, levels=(1,), dimensions=8, cache=False
    )
    return made.fit(images[:40]).calibrate(images[40:], false_alarm_rate=0.05)


@pytest.fixture(scope="session")
def model(detector, tmp_path_factory):
    return detector.save(tmp_path_factory.mktemp("served") / "part.safetensors")


@pytest.fixture
def stub_file(tmp_path):
    path = tmp_path / "stub.safetensors"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def client(model):
    with client_of(house_of(model, dracones.load)) as found:
        yield found
