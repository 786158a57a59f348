"""Exact maths of normalizing flows: bijections, masks, conditioners, densities. Knows no data and no detector.

Directions are `encode: x -> z` and `decode: z -> x`; log-determinants are of encode, nats, `[B]`; log-likelihoods nats.
"""

from dracones.flows.actnorm import ActNorm
from dracones.flows.all_in_one import AllInOne, Mixing
from dracones.flows.bijection import Bijection, ChannelMixing
from dracones.flows.chain import Chain, Inverse
from dracones.flows.channel_affine import ChannelAffine
from dracones.flows.conditioners import (
    MLP,
    Bottleneck,
    ContextConditioner,
    ConvNet,
    Highway,
    PaddingMode,
    ResNet,
    ZeroConv2d,
    ZeroLinear,
)
from dracones.flows.coupling import AdditiveCoupling, AffineCoupling, Coupling
from dracones.flows.distributions import Base, StandardNormal
from dracones.flows.flow import Flow, FlowTerms
from dracones.flows.invertible_conv import InvertibleConv1x1
from dracones.flows.logit import Logit
from dracones.flows.masks import channels, checkerboard, cycle, halves
from dracones.flows.multiscale import FactorOut, MultiScale
from dracones.flows.permutation import Permutation
from dracones.flows.rotation import Rotation
from dracones.flows.scales import AtanScale, SigmoidScale, TanhScale
from dracones.flows.squeeze import Squeeze
from dracones.flows.trace import TraceStep

__all__ = [
    "MLP",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AllInOne",
    "AtanScale",
    "Base",
    "Bijection",
    "Bottleneck",
    "Chain",
    "ChannelAffine",
    "ChannelMixing",
    "ContextConditioner",
    "ConvNet",
    "Coupling",
    "FactorOut",
    "Flow",
    "FlowTerms",
    "Highway",
    "Inverse",
    "InvertibleConv1x1",
    "Logit",
    "Mixing",
    "MultiScale",
    "PaddingMode",
    "Permutation",
    "ResNet",
    "Rotation",
    "SigmoidScale",
    "Squeeze",
    "StandardNormal",
    "TanhScale",
    "TraceStep",
    "ZeroConv2d",
    "ZeroLinear",
    "channels",
    "checkerboard",
    "cycle",
    "halves",
]
