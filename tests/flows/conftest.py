"""The registry of all bijections: a new layer is tested by adding one line."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dracones import flows as f


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], f.Bijection]
    shape: tuple[int, ...]
    context: int = 0
    values: str = "real"  # "real", "unit" (inside [0, 1]) or "levels" (8-bit levels in [0, 1])
    shown: str = ""  # what repr has to show

    def input(self, batch: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.values == "real":
            return torch.randn(batch, *self.shape, generator=generator, dtype=dtype)
        if self.values == "unit":
            return torch.rand(batch, *self.shape, generator=generator, dtype=dtype)
        return torch.randint(0, 256, (batch, *self.shape), generator=generator).to(dtype) / 255

    def condition(self, batch: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        if not self.context:
            return None
        return torch.randn(batch, self.context, generator=torch.Generator().manual_seed(9), dtype=dtype)

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> f.Bijection:
        torch.manual_seed(seed)
        return randomized(self.make(), seed).to(dtype).eval()


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move parameters and running statistics away from their starting values, where layers are identities."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in module.named_buffers():
            if "running_" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module


small = partial(f.ConvNet, hidden=5)
mlp = partial(f.MLP, hidden=6)
board = f.checkerboard((2, 4, 4))
quadrants = f.cycle((2, 4, 4), step=1)
odd = torch.tensor([True, False, True, False])


def _glow(channels: int) -> list[f.Bijection]:
    return [f.ActNorm(channels), f.InvertibleConv1x1(channels), f.AffineCoupling(f.channels(channels), small)]


def _multi_scale(memory: str) -> f.Bijection:
    levels = f.Chain(f.Squeeze(), *_glow(4), *_glow(4), memory=memory), f.Chain(f.Squeeze(), *_glow(8), memory=memory)
    return f.Chain(f.Logit(), f.MultiScale(*levels))


def _vectors(memory: str) -> f.Bijection:
    coupling = partial(f.AffineCoupling, conditioner=mlp, context_features=3)
    return f.Chain(
        coupling(f.channels(5)),
        f.Permutation.reversed(5),
        coupling(f.channels(5, reverse=True), scale="atan"),
        f.ActNorm(5),
        memory=memory,
    )


CASES = [
    Case(
        "affine-channels", lambda: f.AffineCoupling(f.channels(3), small), (3, 4, 5), shown="mask 3: reads 1, changes 2"
    ),
    Case("affine-vector", lambda: f.AffineCoupling(f.channels(5, reverse=True), mlp), (5,), shown="reads 3, changes 2"),
    Case("affine-odd-channels", lambda: f.AffineCoupling(odd, small), (4, 3, 3)),
    Case(
        "affine-checkerboard",
        lambda: f.AffineCoupling(board, partial(f.ResNet, hidden=4, blocks=2)),
        (2, 4, 4),
        shown="mask 2x4x4",
    ),
    Case("affine-halves", lambda: f.AffineCoupling(f.halves((2, 4, 4)), partial(f.Highway, hidden=4)), (2, 4, 4)),
    Case(
        "affine-cycle",
        lambda: f.AffineCoupling(quadrants[0], small, changes=quadrants[1]),
        (2, 4, 4),
        shown="reads 8, changes 8",
    ),
    Case("affine-atan", lambda: f.AffineCoupling(f.channels(4), small, scale="atan"), (4, 3, 3), shown="limit=3"),
    Case("affine-sigmoid", lambda: f.AffineCoupling(f.channels(4), small, scale="sigmoid"), (4, 3, 3), shown="shift=2"),
    Case(
        "affine-scale-first",
        lambda: f.AffineCoupling(f.channels(4), small, shift_first=False),
        (4, 3, 3),
        shown="x exp(s) + t",
    ),
    Case("affine-context", lambda: f.AffineCoupling(f.channels(4), mlp, context_features=3), (4,), context=3),
    Case("affine-map-context", lambda: f.AffineCoupling(board, small, context_features=2), (2, 4, 4), context=2),
    Case("affine-bottleneck", lambda: f.AffineCoupling(board, partial(small, bottleneck=2, size=(4, 4))), (2, 4, 4)),
    Case("additive-channels", lambda: f.AdditiveCoupling(f.channels(4), small), (4, 3, 3), shown="mask 4"),
    Case("additive-checkerboard", lambda: f.AdditiveCoupling(board, small), (2, 4, 4)),
    Case("actnorm", lambda: f.ActNorm(3), (3, 2, 4), shown="ActNorm(3, initialized=False)"),
    Case("actnorm-vector", lambda: f.ActNorm(6), (6,)),
    Case("conv1x1-lu", lambda: f.InvertibleConv1x1(4), (4, 3, 2), shown="4, lu=True"),
    Case("conv1x1-plain", lambda: f.InvertibleConv1x1(4, lu=False), (4, 3, 2), shown="lu=False"),
    Case("conv1x1-vector", lambda: f.InvertibleConv1x1(6), (6,)),
    Case("permutation", lambda: f.Permutation([2, 0, 3, 1]), (4, 2, 3), shown="[2, 0, 3, 1]"),
    Case(
        "permutation-random", lambda: f.Permutation.random(6, torch.Generator().manual_seed(torch.initial_seed())), (6,)
    ),
    Case("squeeze", lambda: f.Squeeze(), (2, 4, 6), shown="factor=2"),
    Case("squeeze-3", lambda: f.Squeeze(3), (1, 6, 3)),
    Case("logit", lambda: f.Logit(), (2, 3, 3), values="unit", shown="margin=0.05"),
    Case("channel-affine", lambda: f.ChannelAffine(3), (3, 2, 4), shown="ChannelAffine(3)"),
    Case("channel-affine-vector", lambda: f.ChannelAffine(5), (5,)),
    Case("rotation", lambda: f.Rotation(4, torch.Generator().manual_seed(0)), (4, 2, 3), shown="Rotation(4)"),
    Case("rotation-vector", lambda: f.Rotation(5, torch.Generator().manual_seed(0)), (5,)),
    Case("all-in-one", lambda: f.AllInOne(5, small, clamp=1.9), (5, 3, 4), shown="mask 5: reads 3, changes 2"),
    Case("all-in-one-rotation", lambda: f.AllInOne(4, mlp, clamp=1.9, mixing="rotation"), (4,)),
    Case("all-in-one-context", lambda: f.AllInOne(4, mlp, clamp=1.9, context_features=3), (4,), context=3),
    Case("inverse", lambda: f.Inverse(f.AffineCoupling(f.channels(4), small)), (4, 3, 3)),
    Case("inverse-squeeze", lambda: f.Inverse(f.Squeeze()), (8, 2, 2)),
    Case("chain-empty", lambda: f.Chain(), (2, 3)),
    Case("chain-glow", lambda: f.Chain(f.Squeeze(), *_glow(4), *_glow(4)), (1, 4, 4)),
    Case("chain-vectors", lambda: _vectors("standard"), (5,), context=3),
    Case("chain-vectors-constant", lambda: _vectors("constant"), (5,), context=3),
    Case("multiscale", lambda: _multi_scale("standard"), (1, 4, 8), values="unit", shown="keep=half"),
    Case("multiscale-constant", lambda: _multi_scale("constant"), (1, 4, 8), values="unit"),
    Case(
        "multiscale-keep",
        lambda: f.MultiScale(*(f.Chain(*_glow(c)) for c in (6, 4, 2)), keep=(4, 2)),
        (6, 2, 2),
        shown="keep=(4, 2)",
    ),
    Case("factor-out", lambda: f.FactorOut(f.Chain(*_glow(2)), keep=2), (3, 2, 3)),
]


def _fixture(wanted: Callable[[Case], bool]):
    chosen = [case for case in CASES if wanted(case)]

    @pytest.fixture(params=chosen, ids=lambda case: case.name)
    def case(request) -> Case:
        return request.param

    return case


case = _fixture(lambda case: True)
conditional_case = _fixture(lambda case: case.context > 0)
shaped_case = _fixture(lambda case: case.make().x_pattern != (...,))
weighted_case = _fixture(lambda case: any(True for _ in case.make().parameters()) and case.values == "real")
reversible_case = _fixture(lambda case: True)
