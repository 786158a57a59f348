"""The step that flows on features are made of."""

from typing import Literal, cast

import torch
from torch import nn

from dracones.flows.bijection import Bijection
from dracones.flows.chain import Chain
from dracones.flows.channel_affine import ChannelAffine
from dracones.flows.coupling import AffineCoupling, ConditionerFactory
from dracones.flows.permutation import Permutation
from dracones.flows.rotation import Rotation
from dracones.flows.scales import TanhScale

Mixing = Literal["permutation", "rotation"]

# FrEIA damps what a conditioner says, so that a fresh network changes little.
DAMPING = 0.1


class AllInOne(Chain):
    r"""FrEIA's all-in-one block, which FastFlow, CFLOW-AD and MSFlow are made of: coupling, affine map, mixing.

    The first half of the channels, :math:`x_1` (the larger, if they are odd), passes and sets how the rest changes;
    then every channel is scaled and shifted, and all are mixed:

    .. math:: y = (x_1,\; x_2 \exp s + t), \quad z = M (g \cdot y + o), \quad
              \log|\det| = \sum_{hw} \Big( \sum_c s_{chw} + \sum_c \log g_c \Big)

    with :math:`s = \alpha \tanh(0.1\, a_s)`, :math:`t = 0.1\, a_t` from the conditioner's output a. M is a random
    permutation (by index) or a random rotation; both keep the volume. Here g = exp(log_scale) where FrEIA has a
    softplus; with a conditioner that ends in zeros a new step only mixes.

    Args:
        channels: at least 2.
        conditioner: the s,t-network, or what makes it.
        clamp: bound :math:`\alpha` of s (FastFlow 2.0, CFLOW and MSFlow 1.9).
        mixing: "permutation" or "rotation".
        context_features: what the conditioner is told beside.
        generator: draws the mixing.

    Raises:
        ValueError: fewer than 2 channels.

    Reference:
        Ardizzone et al. 2018-2022, FrEIA, ``AllInOneBlock``; Kingma and Dhariwal 2018, section 3.

    Example:
        >>> from dracones.flows import MLP
        >>> AllInOne(4, MLP, clamp=2.0).encode(torch.ones(1, 4))[1]
        tensor([0.], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        channels: int,
        conditioner: nn.Module | ConditionerFactory,
        *,
        clamp: float,
        mixing: Mixing = "permutation",
        context_features: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        if channels < 2:
            raise ValueError(f"AllInOne: at least 2 channels are needed, one read and one changed; got {channels}")
        changed = channels // 2
        coupling = AffineCoupling(
            torch.arange(channels) < channels - changed,
            conditioner,
            scale=TanhScale(changed, limit=clamp, slope=DAMPING, learnable=False),
            shift_first=False,
            shift_gain=DAMPING,
            context_features=context_features,
        )
        mix: Bijection
        mix = Permutation.random(channels, generator) if mixing == "permutation" else Rotation(channels, generator)
        super().__init__(coupling, ChannelAffine(channels), mix)
        self.clamp = clamp

    @property
    def coupling(self) -> AffineCoupling:
        """What changes one half by the other."""
        return cast(AffineCoupling, self[0])

    @property
    def affine(self) -> ChannelAffine:
        """What scales and shifts all channels."""
        return cast(ChannelAffine, self[1])

    @property
    def mix(self) -> Permutation | Rotation:
        """What mixes them."""
        return cast(Permutation | Rotation, self[2])
