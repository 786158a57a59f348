"""ActNorm: a scale and a shift per channel, set by the first batch seen."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from dracones.flows.bijection import Bijection, Pattern, positions


class ActNorm(Bijection):
    """`z = (x + shift) exp(log_scale)` per channel (Kingma and Dhariwal 2018, section 3.1).

    The first batch encoded in train mode sets both so that each channel leaves with mean 0 and standard deviation 1;
    in eval mode nothing is ever set. A channel whose deviation is below `minimum_std` (a constant one) keeps scale 1:
    its reciprocal would be infinite. Whether it has been set is a buffer and so survives saving.

    Example:
        >>> norm = ActNorm(3)
        >>> z, log_det = norm.encode(torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 5 + 2)
        >>> z.mean().abs().item() < 1e-5, round(z.std().item(), 2)
        (True, 1.0)
    """

    initialized: Tensor

    def __init__(self, channels: int, *, minimum_std: float = 1e-5) -> None:
        super().__init__()
        self.minimum_std = minimum_std
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._is_initialized = False  # the buffer's value without a device round trip, or a break in a compiled graph

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (self.shift.shape[0], ...)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.awaits_data and x.shape[0]:
            self.initialize(x)
        return (x + self._wide(self.shift, x)) * self._wide(self.log_scale, x).exp(), self._log_det(x)

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * self._wide(-self.log_scale, z).exp() - self._wide(self.shift, z), self._log_det(z)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set shift and scale from a batch. Raises ValueError if it holds a non-finite value."""
        flat = x.detach().transpose(0, 1).flatten(1).to(torch.promote_types(x.dtype, torch.float32))
        std, mean = torch.std_mean(flat, dim=1, correction=0)
        if not bool(torch.isfinite(std).all() and torch.isfinite(mean).all()):
            raise ValueError("ActNorm: the batch that should initialise it holds a non-finite value")
        std = torch.where(std > self.minimum_std, std, torch.ones_like(std))
        self.shift.copy_(-mean)
        self.log_scale.copy_(-std.log())
        self.initialized.fill_(True)
        self._is_initialized = True

    @property
    def awaits_data(self) -> bool:
        """Whether the next batch encoded will set shift and scale."""
        return self.training and not self._is_initialized

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * positions(x)).expand(x.shape[0])

    def _wide(self, per_channel: Tensor, x: Tensor) -> Tensor:
        return per_channel.view(-1, *(1 for _ in x.shape[2:]))

    @override
    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_initialized = bool(self.initialized)

    @override
    def extra_repr(self) -> str:
        return f"{self.shift.shape[0]}, initialized={self._is_initialized}"
