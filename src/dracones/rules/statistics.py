"""Gather the statistics that rules ask for: from the density, from the image alone, from other models."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dracones.images.codecs import codecs
from dracones.rules.complexity import complexity
from dracones.rules.geometry import gradient_norm, intrinsic_dimension
from dracones.rules.levels import LEVEL_STATISTICS, level_statistics
from dracones.rules.rule import Rule, create
from dracones.rules.subbands import subband_energies, subband_names


class GivesStatistics(Protocol):
    """What is asked of a density here; rules import none."""

    image_shape: tuple[int, int, int]

    @property
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""
        ...

    def statistics(
        self, images: Tensor, *, names: Sequence[str] | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Named numbers per image [B]."""
        ...


def image_statistics(image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Names of the statistics that need the image alone: sub-bands, levels, complexities.

    >>> image_statistics((1, 28, 28))[-1]
    'complexity_webp'
    """
    compressed = tuple(f"complexity_{codec}" for codec in codecs() if codec != "jpeg2000")
    return subband_names(image_shape) + LEVEL_STATISTICS + compressed


def gather(
    density: GivesStatistics | None,
    images: Tensor | Iterable[Tensor],
    names: Sequence[str],
    *,
    generator: torch.Generator | None = None,
    background: Any = None,
    ensemble: Sequence[Any] = (),
    further: "Mapping[str, Further] | None" = None,
    batch_size: int = 256,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """The named statistics [N] of images, float64, computing only what the names need.

    `images` is a tensor [N, C, H, W] in [0, 1] or an iterable of batches; it is moved to the density's device.
    Names are those of the density (`density.available_statistics`), of the image (`image_statistics`), and
    - `gradient_norm`, `intrinsic_dimension`: for flows;
    - `background_log_prob`: log p of the density `background`;
    - `ensemble_log_prob_mean`, `ensemble_log_prob_variance`: over the densities in `ensemble`;
    - those of `further`, each the name of a function from images [B, C, H, W] to numbers [B].
    `advance(n)` is called after each batch. Raises `ValueError` for a name that nothing given can supply.

    >>> gather(None, torch.zeros(2, 1, 8, 8), ["brightness"])["brightness"].tolist()
    [0.0, 0.0]
    """
    wanted = tuple(dict.fromkeys(names))
    sources = _sources(density, wanted, background, ensemble, further or {}, checked=True)
    batches = images.split(batch_size) if isinstance(images, Tensor) else images
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    device = _device(density)
    for batch in batches:
        batch = batch.to(device) if device is not None else batch
        for name, values in _found(sources, batch, generator).items():
            parts[name].append(values.detach())
        if advance is not None:
            advance(len(batch))
    empty = torch.zeros(0, dtype=torch.float64)
    return {name: torch.cat(found) if found else empty for name, found in parts.items()}


def statistics_graph(
    density: GivesStatistics,
    images: Tensor,
    names: Sequence[str],
    *,
    background: Any = None,
    ensemble: Sequence[Any] = (),
    further: "Mapping[str, Further] | None" = None,
) -> dict[str, Tensor]:
    """The named statistics [B] of one batch, float64, as a pure graph: nothing is checked, moved or cut.

    Densities are called; see `gather` for the names.
    """
    wanted = tuple(dict.fromkeys(names))
    return _found(_sources(density, wanted, background, ensemble, further or {}, checked=False), images, None)


def _found(
    sources: "list[tuple[_Source, tuple[str, ...]]]", images: Tensor, generator: torch.Generator | None
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for source, names in sources:
        given = source(images, names, generator)
        found |= {name: given[name].to("cpu", torch.float64) for name in names}
    return found


def create_for(name: str, density: GivesStatistics, *, further: Sequence[str] = (), **options: Any) -> Rule:
    """The rule `name` set up for what this density gives.

    `auto` takes all cheap statistics of the density and the image and the `further` ones that are named, `dose` the
    density's own where it lacks the three of a flow; the other rules are as `create` makes them. Options given win.
    """
    own = density.available_statistics
    if name == "auto" and "statistics" not in options:
        options["statistics"] = [*cheap_statistics(density), *further]
    if name == "dose" and "statistics" not in options and "log_det" not in own:
        options["statistics"] = [each for each in own if each not in _EXPENSIVE]
    return create(name, **options)


def codec_statistics(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that a codec gives: sizes of the compressed image, which no graph of tensors holds.

    >>> codec_statistics(("log_prob", "complexity_webp"))
    ('complexity_webp',)
    """
    return tuple(name for name in names if name.removeprefix("complexity_") in codecs())


_EXPENSIVE = ("likelihood_regret", "gradient_norm", "intrinsic_dimension")


def cheap_statistics(density: GivesStatistics) -> tuple[str, ...]:
    """All statistics that cost no more than one pass of the density: what `auto` merges."""
    own = tuple(name for name in density.available_statistics if name not in _EXPENSIVE)
    return own + image_statistics(density.image_shape)


Further = Callable[[Tensor], Tensor]
"""Numbers [B] of images [B, C, H, W] that something beside the density gives: a graph of tensors."""
_Source = Callable[[Tensor, tuple[str, ...], torch.Generator | None], dict[str, Tensor]]


def _sources(
    density: Any,
    names: tuple[str, ...],
    background: Any,
    ensemble: Sequence[Any],
    further: Mapping[str, Further],
    *,
    checked: bool,
) -> list[tuple[_Source, tuple[str, ...]]]:
    """Which function supplies which names; every name is claimed once."""
    left = list(names)

    def claim(test: Callable[[str], bool]) -> tuple[str, ...]:
        taken = tuple(name for name in left if test(name))
        left[:] = [name for name in left if name not in taken]
        return taken

    found: list[tuple[_Source, tuple[str, ...]]] = []
    if density is not None:
        own = set(density.available_statistics)
        found.append((_density_source(_answer(density, checked)), claim(lambda name: name in own)))
        if hasattr(density, "log_prob_at"):
            found.append((_gradient_source(density), claim(lambda name: name == "gradient_norm")))
        if hasattr(density, "decode_flat"):
            found.append((_dimension_source(density), claim(lambda name: name == "intrinsic_dimension")))
    if background is not None:
        found.append(
            (_background_source(_answer(background, checked)), claim(lambda name: name == "background_log_prob"))
        )
    if ensemble:
        found.append(
            (_ensemble_source([_answer(each, checked) for each in ensemble]), claim(lambda name: name in _ENSEMBLE))
        )
    found.append((_further_source(further), claim(lambda name: name in further)))
    found.append((_complexity_source, claim(lambda name: name.removeprefix("complexity_") in codecs())))
    found.append((_level_source, claim(lambda name: name in LEVEL_STATISTICS)))
    found.append((_subband_source, claim(lambda name: name in _SUBBANDS)))
    if left:
        given = list(density.available_statistics) if density is not None else []
        raise ValueError(
            f"gather: nothing given supplies the statistics {left}. The density gives {given};"
            " background_log_prob needs `background`, ensemble_log_prob_* need `ensemble`,"
            " likelihood_regret a VAE, intrinsic_dimension a flow; `further` may give any other"
        )
    return [(source, claimed) for source, claimed in found if claimed]


_ENSEMBLE = ("ensemble_log_prob_mean", "ensemble_log_prob_variance")
_SUBBANDS = frozenset(subband_names((3, 1024, 1024)))


_Answer = Callable[..., dict[str, Tensor]]


def _answer(density: Any, checked: bool) -> _Answer:
    """How a density is asked: behind its checks, or as the graph that it is."""
    answer: _Answer = density.statistics if checked else density
    return answer


def _density_source(density: _Answer) -> _Source:
    @torch.no_grad()
    def source(images: Tensor, names: tuple[str, ...], generator: torch.Generator | None) -> dict[str, Tensor]:
        return density(images, names=names, generator=generator)

    return source  # a statistic that needs gradients (a refit of a posterior) enables them itself


def _gradient_source(density: Any) -> _Source:
    def source(images: Tensor, names: tuple[str, ...], generator: torch.Generator | None) -> dict[str, Tensor]:
        points, _ = density.dequantise(images, generator=generator)
        return {name: gradient_norm(density.log_prob_at, points) for name in names}

    return source


def _dimension_source(density: Any) -> _Source:
    def source(images: Tensor, names: tuple[str, ...], generator: torch.Generator | None) -> dict[str, Tensor]:
        with torch.no_grad():
            latents = density.encode_flat(images, generator=generator)
            count = intrinsic_dimension(density.decode_flat, latents, threshold=density.noise_directions_below)
        return dict.fromkeys(names, count)

    return source


def _background_source(background: _Answer) -> _Source:
    @torch.no_grad()
    def source(images: Tensor, names: tuple[str, ...], generator: torch.Generator | None) -> dict[str, Tensor]:
        value = background(images, names=("log_prob",), generator=generator)["log_prob"]
        return dict.fromkeys(names, value)

    return source


def _ensemble_source(ensemble: Sequence[_Answer]) -> _Source:
    @torch.no_grad()
    def source(images: Tensor, names: tuple[str, ...], generator: torch.Generator | None) -> dict[str, Tensor]:
        each = torch.stack(
            [member(images, names=("log_prob",), generator=generator)["log_prob"].double() for member in ensemble]
        )
        found = {
            "ensemble_log_prob_mean": each.mean(dim=0),
            "ensemble_log_prob_variance": each.var(dim=0, correction=0),
        }
        return {name: found[name] for name in names}

    return source


def _further_source(further: Mapping[str, Further]) -> _Source:
    @torch.no_grad()
    def source(images: Tensor, names: tuple[str, ...], _: torch.Generator | None) -> dict[str, Tensor]:
        return {name: further[name](images) for name in names}

    return source


def _complexity_source(images: Tensor, names: tuple[str, ...], _: torch.Generator | None) -> dict[str, Tensor]:
    return {name: complexity(images, name.removeprefix("complexity_")) for name in names}


def _level_source(images: Tensor, names: tuple[str, ...], _: torch.Generator | None) -> dict[str, Tensor]:
    found = level_statistics(images)
    return {name: found[name] for name in names}


def _subband_source(images: Tensor, names: tuple[str, ...], _: torch.Generator | None) -> dict[str, Tensor]:
    energies = subband_energies(images)
    missing = [name for name in names if name not in energies]
    if missing:
        raise ValueError(f"gather: images of shape {list(images.shape[1:])} have no sub-bands {missing}")
    return {name: energies[name] for name in names}


def _device(density: Any) -> torch.device | None:
    if not isinstance(density, torch.nn.Module):
        return None
    tensor = next(iter([*density.parameters(), *density.buffers()]), None)
    return None if tensor is None else tensor.device
