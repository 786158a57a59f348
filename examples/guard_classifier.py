"""Guard a classifier that is already deployed: the same logits, and beside them a score, a p-value and a verdict.

    python examples/guard_classifier.py

The classifier here learns eight kinds of stripes in a second; any `torch.nn.Module` from images to logits will do.
"""

import torch
from torch import Tensor, nn

import dracones

KINDS = 8


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 16, 16] of sine waves in eight directions, with noise, and their kinds."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(KINDS, (count,), generator=generator)
    angle, phase = torch.pi * kinds / KINDS, 6.3 * torch.rand(count, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = torch.sin(rows * angle.sin()[:, None, None] + columns * angle.cos()[:, None, None] + phase[:, None, None])
    noise = 0.05 * torch.randn(count, 16, 16, generator=generator)
    return (0.5 + 0.4 * wave + noise).clamp(0, 1)[:, None], kinds


def classifier(images: Tensor, kinds: Tensor) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU())
    net = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, KINDS))
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(150):
        batch = slice(step % 10 * 100, step % 10 * 100 + 100)
        loss = nn.functional.cross_entropy(net(images[batch]), kinds[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def main() -> None:
    seen, kinds = stripes(1000, seed=0)
    net = classifier(seen, kinds)
    fresh, _ = stripes(400, seed=1)  # images the classifier was not trained on: calibrate on such
    noise = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    guard = dracones.create("knn", classifier=net, normalize=False, k=10)
    guard = guard.fit(seen).calibrate(fresh[:200], false_alarm_rate=0.05)
    rates = [guard.predict(images).is_anomaly.mean() for images in (fresh[200:], noise)]
    print(f"called anomalous: {rates[0]:.0%} of fresh stripes (5% promised), {rates[1]:.0%} of noise")
    served = guard.wrap()
    answer = served(noise[:1])
    print(f"one request: logits {tuple(answer.logits.shape)}, score {float(answer.scores[0]):.2f}")


if __name__ == "__main__":
    main()
