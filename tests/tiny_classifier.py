"""A tiny frozen classifier whose weights are a formula, so that golden values hold on every machine."""

import torch
from torch import Tensor, nn


def frozen(module: nn.Module) -> nn.Module:
    """Fill every weight with sines of its index; no random generator is involved."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(1.7 * index + 0.31 * index**1.5 + i) * (3.0 / max(1, parameter[0].numel()) ** 0.5)
            parameter.copy_(values.reshape(parameter.shape))
    return module.eval()


class TinyNet(nn.Module):
    """Convolution, BatchNorm, ReLU, mean, linear: 8 features, 4 classes."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, classes)
        frozen(self)

    def features(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.stem(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.features(x)))


def images(count: int, channels: int = 3, size: int = 8) -> Tensor:
    """Images in [0, 1] by formula: waves of another length, phase and brightness in each."""
    pixel = torch.arange(channels * size * size, dtype=torch.float64)
    image = torch.arange(count, dtype=torch.float64)[:, None]
    brightness, contrast = 0.5 + 0.3 * torch.sin(2.4 * image), 0.1 + 0.1 * torch.cos(image) ** 2
    waves = brightness + contrast * torch.sin((0.2 + 0.05 * (image % 17)) * pixel + image)
    return waves.float().reshape(count, channels, size, size)
