"""Weight files of other people: tensors by name, and no code is ever run."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_PICKLES = {".pt", ".pth", ".bin", ".th", ".ckpt", ".tar"}
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a pickle with ``weights_only=True`` (no code is ever run).

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither format, a pickle that holds more than tensors, or a file without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no readable safetensors file ({error})") from error
    if path.suffix not in _PICKLES:
        raise ValueError(f"{path}: expected .safetensors, or {sorted(_PICKLES)} holding tensors only")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} was refused: it is no PyTorch file, or its pickle holds more than tensors and loading it "
            f"could run code ({type(error).__name__}). Convert it where you trust it: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict of tensors")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{path} holds no tensors")
    for prefix in ("module.", "_orig_mod."):  # saved from DataParallel, from a compiled module
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
