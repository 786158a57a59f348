"""What an analysis needs of a density, and the refusal by name where it is missing."""

from dracones.densities import Density
from dracones.densities.flow_density import FlowDensity
from dracones.flows import AdditiveCoupling, Coupling, InvertibleConv1x1


class UnsupportedError(TypeError):
    """An analysis that this density cannot support; the message names the densities that can."""


def needs_flow(density: Density, analysis: str) -> FlowDensity:
    """The density, if it is a flow.

    Raises:
        UnsupportedError: it is not; the message names the densities that are.
    """
    if not isinstance(density, FlowDensity):
        raise UnsupportedError(
            f"{analysis} needs the latents and layers of a flow; {type(density).__name__} has none. "
            "Densities that support it: glow, realnvp"
        )
    return density


def needs_points(density: Density, analysis: str) -> None:
    """Check that the density has gradients with respect to the image.

    Raises:
        UnsupportedError: it is one of pixel levels.
    """
    own = type(density).log_prob_at
    discrete = getattr(getattr(density, "pixels", None), "discrete", False)
    if own is Density.log_prob_at or discrete:
        raise UnsupportedError(
            f"{analysis} needs a density of points of the unit cube, with gradients; {type(density).__name__} here is "
            'one of pixel levels. Densities that support it: glow, realnvp, vae with likelihood="gaussian"'
        )


def needs_couplings(density: Density, analysis: str, *, spatial: bool = False) -> FlowDensity:
    """The flow, if it has couplings (with masks over positions, if ``spatial``).

    Raises:
        UnsupportedError: it has none.
    """
    flow = needs_flow(density, analysis)
    found = [layer for layer in flow.flow.modules() if isinstance(layer, Coupling)]
    if not any(layer.spatial or not spatial for layer in found):
        kind = "couplings whose masks lie over the pixels" if spatial else "couplings"
        able = "realnvp (any of its masks)" if spatial else "glow, realnvp"
        raise UnsupportedError(
            f"{analysis} needs {kind}; this {type(density).__name__} has none. Densities that do: {able}"
        )
    return flow


def needs_constant_volume(density: Density, analysis: str) -> FlowDensity:
    """The flow, if its couplings are all additive and it mixes channels by 1×1 convolutions (constant-volume Glow).

    Raises:
        UnsupportedError: it is another density.
    """
    flow = needs_flow(density, analysis)
    layers = list(flow.flow.modules())
    scaling = [layer for layer in layers if isinstance(layer, Coupling) and not isinstance(layer, AdditiveCoupling)]
    if scaling or not any(isinstance(layer, InvertibleConv1x1) for layer in layers):
        raise UnsupportedError(
            f"{analysis} is derived for a constant-volume Glow (additive couplings and 1×1 convolutions); this flow "
            f'has {len(scaling)} couplings that scale. Make one with the density option coupling="additive", or use '
            "the Hutchinson estimate, which is for any flow"
        )
    return flow
