"""A multilayer perceptron, for vectors."""

from torch import Tensor, nn

from dracones.flows.conditioners.bottleneck import Bottleneck
from dracones.flows.conditioners.zeros import ZeroLinear


class MLP(nn.Module):
    """`Linear-ReLU`, then `layers - 1` times `(Dropout)-Linear-ReLU`, then a linear layer of zeros.

    `[B, in] -> [B, out]`. `bottleneck=l` passes everything through l numbers, in the middle.

    Example:
        >>> import torch
        >>> MLP(3, 4, hidden=8)(torch.ones(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.0,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"MLP: expected at least 1 hidden layer; got {layers}")
        modules: list[nn.Module] = []
        for index in range(layers):
            if index and dropout:
                modules.append(nn.Dropout(dropout))
            modules += [nn.Linear(hidden if index else in_features, hidden), nn.ReLU(inplace=True)]
            if bottleneck is not None and index == (layers - 1) // 2:
                modules.append(Bottleneck(hidden, bottleneck))
        self.network = nn.Sequential(*modules, ZeroLinear(hidden, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for each vector."""
        output: Tensor = self.network(x)
        return output
