"""Which library knows a backbone by its name, and what the nearest names are when none does."""

import difflib
from typing import Literal

__all__ = ["Library", "backbone_names", "library_of"]

Library = Literal["timm", "torchvision", "dracones"]

#: Widths of MobileNetV1 that Google published weights for and timm has no name for: name -> channel multiplier.
MOBILENET_V1_WIDTHS = {"mobilenetv1_025": 0.25, "mobilenetv1_050": 0.5, "mobilenetv1_075": 0.75}


def _timm_names() -> list[str]:
    import timm

    return timm.list_models()


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def backbone_names() -> list[str]:
    """Every name that `FeatureExtractor` takes, sorted; a torchvision name counts only where timm has none.

    Example:
        >>> "resnet18" in backbone_names(), "squeezenet1_1" in backbone_names()
        (True, True)
    """
    return sorted({*_timm_names(), *_torchvision_names(), *MOBILENET_V1_WIDTHS})


def library_of(name: str) -> Library:
    """The library that builds `name`: timm first (a tag such as ``.a1_in1k`` allowed), then torchvision.

    Raises:
        ValueError: no library knows the name; the message lists the nearest ones.

    Example:
        >>> library_of("resnet18"), library_of("mobilenet_v2")
        ('timm', 'torchvision')
    """
    import timm

    architecture = name.split(".", 1)[0]
    if architecture in MOBILENET_V1_WIDTHS:
        return "dracones"
    if timm.is_model(architecture):
        return "timm"
    if name in _torchvision_names():
        return "torchvision"
    nearest = difflib.get_close_matches(name, backbone_names(), n=5, cutoff=0.4)
    hint = f"nearest names: {', '.join(nearest)}" if nearest else "see dracones.features.backbone_names()"
    raise ValueError(f"unknown backbone {name!r}; {hint}")
