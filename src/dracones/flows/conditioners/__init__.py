"""Conditioners: the papers' s,t-networks, plain modules of one tensor that end in zeros."""

from dracones.flows.conditioners.bottleneck import Bottleneck
from dracones.flows.conditioners.contextual import ContextConditioner
from dracones.flows.conditioners.convnet import ConvNet
from dracones.flows.conditioners.highway import Highway
from dracones.flows.conditioners.mlp import MLP
from dracones.flows.conditioners.resnet import ResNet
from dracones.flows.conditioners.zeros import PaddingMode, ZeroConv2d, ZeroLinear

__all__ = [
    "MLP",
    "Bottleneck",
    "ContextConditioner",
    "ConvNet",
    "Highway",
    "PaddingMode",
    "ResNet",
    "ZeroConv2d",
    "ZeroLinear",
]
