"""The CIFAR-10 residual networks whose public weights the benchmark uses (He et al. 2016, section 4.2, shortcut A).

Weights: akamaster/pytorch_resnet_cifar10, BSD-2-Clause. Named to a guard as
    ``benchmarks/classifiers/networks.py:resnet20``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights: every second pixel, new channels zero."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.added = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1 or self.added:
            side = self.added // 2
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.added - side))
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet(nn.Module):
    """6n + 2 layers on 32x32 RGB images; 64 penultimate features."""

    def __init__(self, n: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i in range(3):
            first = Block(widths[i], widths[i + 1], 1 if i == 0 else 2)
            rest = [Block(widths[i + 1], widths[i + 1], 1) for _ in range(n - 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.mean(x, dim=(2, 3)))


def resnet20() -> nn.Module:
    """272,474 parameters; published error 8.27 %."""
    return ResNet(3)


def resnet56() -> nn.Module:
    """855,770 parameters; published error 6.61 %."""
    return ResNet(9)
