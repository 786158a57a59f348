"""Parts of the service's tests: images, a detector whose slowness is set, clients, a real server."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from docs_world import texture
from dracones.calibration import Conformal, Verdict
from dracones.serving import Settings
from dracones.serving.app import create_app
from dracones.serving.house import House
from dracones.serving.server import make_server

SIZE = (32, 32)


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


GOOD, BAD = png(texture(500, SIZE)), png(texture(0, SIZE, defect=True))
FLAT = png(np.full((8, 8, 3), 77, np.uint8))


class Stub:
    """A detector whose score is the image's mean, whose threshold is 100, and which takes its time."""

    def __init__(self, seconds=0.0, shift=0.0):
        self.seconds, self.shift = seconds, shift
        self.threshold, self.false_alarm_rate = 100.0, 0.05
        self.heat_range, self.gives_maps = None, False
        self.image_shape, self.info = (3, 8, 8), SimpleNamespace(name="stub")
        self.calibration = Conformal().fit(np.arange(1.0, 100.0))
        self.batches = []

    def iterate(self, images, *, batch_size, maps):
        self.batches.append(len(images))
        time.sleep(self.seconds)
        for i in range(len(images)):
            pixels = images.read_native(i)
            if pixels.float().mean() == 13:
                raise ValueError("thirteen is not for me")
            score = float(pixels.float().mean()) + self.shift
            yield Verdict(images.name(i), score, 0.5, score > self.threshold)


def house_of(path, load, **settings):
    return House({"part": path}, load, Settings(**{"reload_every": 0, "drain": 0.3, "deadline": 20, **settings}))


@contextmanager
def client_of(house, **more) -> Iterator[TestClient]:
    with TestClient(create_app(house), base_url="http://127.0.0.1", **more) as found:
        found.house = house
        yield found


@contextmanager
def running(house) -> Iterator[int]:
    """A real server on a free port of this machine, until the block ends."""
    said, opened = {}, threading.Event()

    def ready(address):
        said["port"] = int(address.rsplit(":", 1)[1])
        opened.set()

    server = make_server(house, ready)
    server.config.port = 0
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert opened.wait(20)
        yield said["port"]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
