"""A run in a Python of its own, for the test that kills it: `python killable_run.py CHECKPOINT [linger]`.

Prints the number of each step as it is made, and at the end a hash of the weights.
"""

import hashlib
import sys
import time

import torch
from torch import Tensor, nn

from dracones.training import TrainingConfig, train


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.Conv2d(8, 1, 3, padding=1),
            )

    def training_loss(self, batch: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.rand(batch.shape, generator=generator) / 10
        return ((self.net(batch + noise) - batch) ** 2).mean()


class Printed:
    def start(self, total: int | None, what: str) -> None:
        self.done = 0

    def advance(self, n: int = 1, **numbers: float) -> None:
        self.done += n
        print(self.done, flush=True)

    def finish(self) -> None:
        pass


def run(checkpoint: str | None) -> str:
    """Train to the end, from the checkpoint if there is one; the hash of the weights."""
    torch.set_num_threads(1)
    images = torch.rand(150, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    config = TrainingConfig(
        epochs=5, batch_size=8, device="cpu", schedule="cosine", average=0.95, clip_norm=0.5, checkpoint_steps=3
    )
    module = ConvNet()
    progress = Printed() if checkpoint else None
    train(module, images, config, validation=images[:30], checkpoint=checkpoint, progress=progress)
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(run(sys.argv[1]), flush=True)
    if "linger" in sys.argv:
        # Whoever means to kill this run may be late; it must still be there.
        time.sleep(60)
