"""Without a connection the hub is asked once and not for more than a minute; what is cached needs no connection."""

import socket
import time

import pytest

from dracones.features import FeatureExtractor, hub


@pytest.fixture
def nobody(monkeypatch):
    """No proxy, nothing cached, and an address of this machine where nothing listens."""
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"https://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_no_connection_is_said_at_once_with_the_ways_out(nobody):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"does not answer .*Three ways out.*'backbone'.*a local file.*a connection"):
        FeatureExtractor("resnet18", levels=(1,), weights="pretrained")
    assert time.monotonic() - started < 8


def test_cached_weights_need_no_connection(nobody, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/somewhere/model.safetensors")
    hub.require_hub("resnet18")


def test_behind_a_proxy_it_is_left_to_the_client(nobody, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    hub.require_hub("resnet18")
