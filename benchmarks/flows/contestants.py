"""The same Glow in four libraries: one level after a squeeze, K steps of ActNorm, mixing and affine coupling.

Every conditioner is conv 3×3, ReLU, conv 1×1, ReLU, conv 3×3 with 64 hidden channels; the mixing is a learnt 1×1
convolution (FrEIA has none to learn and uses a fixed rotation, which costs it less). Run by `race.py`, once per
measurement, in a process of its own and with one thread; prints one JSON line.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

STEPS, HIDDEN, BATCH = 8, 64, 64
SHAPES = {"28": (1, 28, 28), "32": (3, 32, 32)}
LogProb = Callable[[Tensor], Tensor]


def convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    last = nn.Conv2d(HIDDEN, out_channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first = nn.Conv2d(in_channels, HIDDEN, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.ReLU(), last)


def dracones(shape: tuple[int, int, int], memory: str = "standard") -> tuple[nn.Module, LogProb]:
    from dracones.flows import ActNorm, AffineCoupling, Chain, ConvNet, Flow, InvertibleConv1x1, Squeeze, channels

    count = shape[0] * 4
    steps = []
    for _ in range(STEPS):
        coupling = AffineCoupling(channels(count), partial(ConvNet, hidden=HIDDEN), scale="sigmoid")
        steps += [ActNorm(count), InvertibleConv1x1(count), coupling]
    flow = Flow(Chain(Squeeze(), *steps, memory=memory), shape=shape)
    return flow, flow.log_prob


def dracones_compiled(shape: tuple[int, int, int]) -> tuple[nn.Module, LogProb]:
    flow, log_prob = dracones(shape)
    flow.initialize(torch.rand(2, *shape))  # type: ignore[operator]
    return flow, torch.compile(log_prob, fullgraph=True)


def dracones_bf16(shape: tuple[int, int, int]) -> tuple[nn.Module, LogProb]:
    flow, log_prob = dracones(shape)

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return log_prob(x)

    return flow, autocast


def freia(shape: tuple[int, int, int]) -> tuple[nn.Module, LogProb]:
    import FrEIA.framework as framework
    import FrEIA.modules as modules

    inn = framework.SequenceINN(*shape)
    inn.append(modules.IRevNetDownsampling)
    for _ in range(STEPS):
        inn.append(modules.AllInOneBlock, subnet_constructor=convolutions, permute_soft=True)

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = inn(x)
        return normal(z) + log_det

    return inn, log_prob


def normflows(shape: tuple[int, int, int]) -> tuple[nn.Module, LogProb]:
    import normflows as nf

    count = shape[0] * 4
    blocks = [nf.flows.GlowBlock(count, HIDDEN, split_mode="channel", leaky=0.0) for _ in range(STEPS)]
    base = nf.distributions.DiagGaussian((count, shape[1] // 2, shape[2] // 2), trainable=False)
    flow = nf.NormalizingFlow(base, [*blocks, nf.flows.Squeeze()])
    return flow, flow.log_prob


def nflows(shape: tuple[int, int, int]) -> tuple[nn.Module, LogProb]:
    from nflows import transforms
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.utils.torchutils import create_mid_split_binary_mask

    class Conditioner(nn.Module):
        def __init__(self, in_channels: int, out_channels: int) -> None:
            super().__init__()
            self.network = convolutions(in_channels, out_channels)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
            return self.network(x)

    count = shape[0] * 4
    layers = [transforms.SqueezeTransform()]
    for _ in range(STEPS):
        coupling = transforms.AffineCouplingTransform(create_mid_split_binary_mask(count), Conditioner)
        layers += [transforms.ActNorm(count), transforms.OneByOneConvolution(count), coupling]
    base = StandardNormal((count, shape[1] // 2, shape[2] // 2))
    flow = Flow(transforms.CompositeTransform(layers), base)
    return flow, flow.log_prob


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + 1.8378770664093453).flatten(1).sum(1)


CONTESTANTS: dict[str, tuple[str, Callable[[tuple[int, int, int]], tuple[nn.Module, LogProb]]]] = {
    "dracones": ("dracones", dracones),
    "dracones, constant memory": ("dracones", partial(dracones, memory="constant")),
    "dracones, torch.compile": ("dracones", dracones_compiled),
    "dracones, bfloat16": ("dracones", dracones_bf16),
    "FrEIA": ("FrEIA", freia),
    "normflows": ("normflows", normflows),
    "nflows": ("nflows", nflows),
}


def resident_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (highest since last cleared) of this process; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(log_prob: LogProb, flow: nn.Module, x: Tensor, task: str, repeats: int) -> dict[str, float]:
    """Images per CPU second (median of the repeats), and how far resident memory rose above where it stood."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4)

    def step() -> None:
        if task == "log_prob":
            with torch.no_grad():
                log_prob(x)
            return
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    for _ in range(2):
        step()
    memory = resident_bytes("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return {"images_per_cpu_second": len(x) / statistics.median(seconds), "peak_memory_mb": memory / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("task", choices=["log_prob", "train"])
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    package, build = CONTESTANTS[arguments.contestant]
    shape = SHAPES[arguments.size]
    flow, log_prob = build(shape)
    flow.train()
    log_prob(torch.rand(4, *shape))  # data-dependent initialisation, compilation, first-call costs
    flow.train(arguments.task == "train")
    result: dict[str, object] = dict(
        measure(log_prob, flow, torch.rand(BATCH, *shape), arguments.task, arguments.repeats)
    )
    result |= {"package": package, "version": version(package), "torch": torch.__version__}
    result["parameters"] = sum(p.numel() for p in flow.parameters() if p.requires_grad)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
