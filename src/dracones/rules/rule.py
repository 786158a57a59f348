"""What every rule promises: statistics of images in, one anomaly score per image out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dracones.registry import Registry

_AT_ONCE = 1024  # rows scored together: some rules hold each beside thousands of normal ones


class Rule(nn.Module, ABC):
    """From a density's statistics to a score: larger = more anomalous, for every rule.

    A rule reads named tensors [B] (`requires` says which) and knows neither images nor density. Called, it is a pure
    graph of tensors; `score` is the same behind checks. `fit` sees the statistics of normal images alone. What it
    learns lies in buffers entered by `fitted_buffers`, whose sizes follow the state dict on load; they stay on the CPU
    in float64, and so do the scores. `config` is the JSON-able record of name and options.

    An implementer gives `requires`, `_fit` and `_score`; both receive float64 tensors. `_score` looks at no value but
    through tensors, and at no image but the row's own.
    """

    requires: tuple[str, ...] = ()
    needs_fit: bool = False
    is_fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self._fitted_names: tuple[str, ...] = ("is_fitted",)
        self.register_buffer("is_fitted", torch.tensor(False))

    def fitted_buffers(self, *names: str) -> None:
        """Enter buffers that `_fit` will fill; empty until then, of whatever size after."""
        for name in names:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self._fitted_names += names

    def fit(self, statistics: Mapping[str, Tensor]) -> None:
        """Learn from the statistics of normal images.

        Raises `ValueError` for a missing or non-finite statistic and for fewer than two images.
        """
        checked = self._checked(statistics)
        count = len(next(iter(checked.values()))) if checked else 0
        if self.needs_fit and count < 2:
            raise ValueError(f"{self.name}: fitting needs at least 2 normal images, got {count}")
        if count:
            for key, values in checked.items():
                bad = int((~torch.isfinite(values)).sum())
                if bad:
                    raise ValueError(
                        f"{self.name}: statistic {key!r} is not finite for {bad} of {count} normal images;"
                        " look at these images and at the density before fitting a rule on them"
                    )
        self._fit(checked)
        self.is_fitted.fill_(True)

    def forward(self, statistics: Mapping[str, Tensor]) -> Tensor:
        """Anomaly score [B], float64, of statistics [B] that nobody checks: what is exported."""
        return self._score({key: statistics[key].double() for key in self.requires})

    def score(self, statistics: Mapping[str, Tensor]) -> Tensor:
        """Anomaly score [B], float64; larger = more anomalous.

        Raises `RuntimeError` before `fit` where fitting is needed, `ValueError` for a missing statistic.
        """
        if self.needs_fit and not bool(self.is_fitted):
            raise RuntimeError(f"{self.name}: fit the rule on the statistics of normal images first")
        checked = self._checked(statistics)
        count = len(next(iter(checked.values()))) if checked else 0
        if count <= _AT_ONCE:
            return self._score(checked)
        pieces = [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]
        return torch.cat([self._score({key: values[piece] for key, values in checked.items()}) for piece in pieces])

    @property
    def name(self) -> str:
        """The name under which the rule was created, else its class name."""
        return str(self.config.get("name", type(self).__name__))

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        """Fill the fitted buffers; default: nothing to learn."""

    @abstractmethod
    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        """The score of checked statistics."""

    def _checked(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        missing = [key for key in self.requires if key not in statistics]
        if missing:
            raise ValueError(
                f"{self.name}: needs the statistics {list(self.requires)}, of which {missing} are missing;"
                f" got {sorted(statistics)}"
            )
        device = self.is_fitted.device
        chosen = {
            key: torch.as_tensor(statistics[key]).detach().to(device=device, dtype=torch.float64)
            for key in self.requires
        }
        sizes = {key: tuple(values.shape) for key, values in chosen.items()}
        if len(set(sizes.values())) > 1 or any(len(size) != 1 for size in sizes.values()):
            raise ValueError(f"{self.name}: statistics must be of one shape [B], got {sizes}")
        return chosen

    def _apply(self, fn: Any, recurse: bool = True) -> "Rule":  # noqa: ARG002 (torch calls it so)
        """Stay on the CPU in float64, whatever the module around it is moved or cast to.

        Scores of a few numbers per image gain nothing from a GPU, some have no float64, and a rule cast to half
        precision would tie what it has to tell apart.
        """
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._fitted_names:
            saved = state_dict.get(prefix + name)
            if saved is not None:
                own = getattr(self, name)
                setattr(self, name, torch.empty(saved.shape, dtype=saved.dtype, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


RULES: Registry[Callable[..., Rule]] = Registry("rule", {}, group="dracones.rules")
_R = TypeVar("_R", bound=Callable[..., Rule])


def register(name: str) -> Callable[[_R], _R]:
    """Enter a rule under `name`."""

    def enter(builder: _R) -> _R:
        RULES.enter(name, builder)
        return builder

    return enter


def names() -> tuple[str, ...]:
    """Names that `create` knows.

    >>> {"likelihood", "typicality", "complexity", "dose", "auto"} <= set(names())
    True
    """
    return RULES.names()


def create(name: str, **options: Any) -> Rule:
    """A new rule by name; raises `ValueError` for an unknown name or option.

    >>> rule = create("likelihood")
    >>> rule.score({"log_prob": torch.tensor([-10.0, -20.0])}).tolist()
    [10.0, 20.0]
    """
    try:
        rule = RULES[name](**options)
    except TypeError as error:
        raise ValueError(f"rule {name!r}: {error}") from error
    rule.config = {"name": name, **options}
    return rule
