"""What is trained for the tables: one record per density, sized for minutes on one CPU thread."""

from dataclasses import dataclass, field
from typing import Any

from dracones.training import TrainingConfig


@dataclass(frozen=True)
class Run:
    """A density, what it is trained on and for how long; `replace_rate` makes it a background model."""

    name: str
    data: str
    density: str
    preset: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    flip: bool = False
    replace_rate: float = 0.0
    weight_decay: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 32

    @property
    def key(self) -> str:
        """File name of the run."""
        return f"{self.name}-seed{self.seed}"

    def training(self) -> TrainingConfig:
        """Adam, cosine to a twentieth, short warm-up, the papers' clipping at norm 100."""
        return TrainingConfig(
            max_steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule="cosine",
            final_fraction=0.05,
            warmup=100,
            clip_norm=100.0,
            weight_decay=self.weight_decay,
            optimizer="adamw" if self.weight_decay else "adam",
            seed=self.seed,
            device="cpu",
            threads=1,
        )


def _realnvp(name: str, preset: str, **options: Any) -> Run:
    return Run(f"fashionmnist-realnvp-{name}", "FashionMNIST", "realnvp", preset, 450, {"hidden": 16, **options})


def _celeba_realnvp(name: str, preset: str) -> Run:
    return Run(f"celeba-realnvp-{name}", "CelebA", "realnvp", preset, 1800, {"hidden": 16, "blocks": 2}, flip=True)


_ALL = (
    *(Run("fashionmnist-glow", "FashionMNIST", "glow", "tiny", 2200, seed=seed) for seed in range(5)),
    *(Run("mnist-glow", "MNIST", "glow", "tiny", 2200, seed=seed) for seed in range(3)),
    Run("cifar10-glow", "CIFAR-10", "glow", "tiny", 5600, flip=True),
    Run("cifar10-glow-constant-volume", "CIFAR-10", "glow", "tiny-constant-volume", 2800, flip=True),
    Run("cifar10-vae", "CIFAR-10", "vae", "tiny", 4000, flip=True, batch_size=64),
    Run("cifar10-pixelcnn", "CIFAR-10", "pixelcnn", "tiny", 600, flip=True),
    Run("celeba-glow", "CelebA", "glow", "tiny", 4400, flip=True),
    Run("fashionmnist-glow-constant-volume", "FashionMNIST", "glow", "tiny-constant-volume", 2200),
    Run("fashionmnist-glow-background", "FashionMNIST", "glow", "tiny", 1200, replace_rate=0.2, weight_decay=1e-2),
    Run("mnist-glow-background", "MNIST", "glow", "tiny", 2200, replace_rate=0.2, weight_decay=1e-2),
    Run("cifar10-glow-background", "CIFAR-10", "glow", "tiny", 2800, flip=True, replace_rate=0.1, weight_decay=1e-2),
    Run("celeba-glow-background", "CelebA", "glow", "tiny", 2800, flip=True, replace_rate=0.1, weight_decay=1e-2),
    Run("fashionmnist-vae", "FashionMNIST", "vae", "tiny", 4000, batch_size=64),
    Run("fashionmnist-pixelcnn", "FashionMNIST", "pixelcnn", "tiny", 450),
    _realnvp("multiscale", "tiny"),
    _realnvp("checkerboard", "checkerboard8"),
    _realnvp("horizontal", "horizontal"),
    _realnvp("cycle", "cycle"),
    _realnvp("bottleneck10", "bottleneck", bottleneck=10),
    _realnvp("bottleneck30", "bottleneck", bottleneck=30),
    _realnvp("bottleneck100", "bottleneck", bottleneck=100),
    _celeba_realnvp("checkerboard", "checkerboard8"),
    _celeba_realnvp("horizontal", "horizontal"),
    _celeba_realnvp("cycle", "cycle"),
)
RUNS = {run.key: run for run in _ALL}
