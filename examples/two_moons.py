"""A normalizing flow on two moons: exact log-likelihoods of points in the plane, and samples.

python examples/two_moons.py [--out moons.png]
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor

from dracones.flows import MLP, ActNorm, AffineCoupling, Chain, Flow, channels


def moons(count: int, seed: int) -> Tensor:
    points, _ = make_moons(count, noise=0.06, random_state=seed)
    return torch.from_numpy(points).float()


def learn(points: Tensor, steps: int) -> Flow:
    """Eight affine couplings, which change one coordinate and read the other in turn."""
    torch.manual_seed(0)
    layers = []
    for index in range(8):
        mask = channels(2, reverse=index % 2 == 1)
        layers += [ActNorm(2), AffineCoupling(mask, partial(MLP, hidden=32))]
    flow = Flow(Chain(*layers), shape=(2,))
    flow.initialize(points)
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(steps):
        batch = points[torch.randint(len(points), (256,), generator=torch.Generator().manual_seed(step))]
        loss = -flow.log_prob(batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("moons.png"))
    arguments = parser.parse_args()
    flow = learn(moons(4000, seed=0), arguments.steps)
    with torch.no_grad():
        held_out = flow.log_prob(moons(1000, seed=1)).mean()
        between = flow.log_prob(torch.tensor([[0.5, 0.25], [3.0, 3.0]]))
        samples = flow.sample(1000, generator=torch.Generator().manual_seed(0))
    print(f"held-out moons: {held_out:.2f} nats; between the moons: {between[0]:.2f}; far away: {between[1]:.1f}")
    axes = Figure(figsize=(5, 4)).subplots()
    axes.scatter(*samples.T, s=3)
    axes.figure.savefig(arguments.out)


if __name__ == "__main__":
    main()
