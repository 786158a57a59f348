"""A frozen network run in bfloat16 where that is asked for, and known under another name then."""

import torch
from torch import Tensor, nn

from dracones.features.dataset import Extractor

__all__ = ["InPrecision", "computes_bf16"]


def computes_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself, so that it is faster there than float32."""
    if device.type == "cuda":
        native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return native
    # Private, and the only way to ask; a test names it.
    return torch.cpu._is_avx512_bf16_supported()


class InPrecision(nn.Module):
    """Stands in for a `FeatureExtractor` (or what is built on one) with its convolutions in bfloat16.

    A model must learn on features of the precision that it will score: bfloat16 shifts features, by little, but all the
    same way. The fingerprint differs, so a cache keeps the two apart.
    """

    def __init__(self, network: Extractor) -> None:
        super().__init__()
        self.network = network
        self.name = f"{network.name}, bf16"

    @property
    def mean(self) -> Tensor:
        """The network's; tells the device."""
        return self.network.mean

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The network's features, in float32 again."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return tuple(level.float() for level in self.network(images))

    def fingerprint(self) -> str:
        """The network's, and the precision."""
        return f"{self.network.fingerprint()}/bf16"
