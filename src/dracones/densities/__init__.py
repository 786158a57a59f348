"""p(image): normalizing flows, a VAE and a PixelCNN behind one contract, in nats of the 8-bit image."""

from dracones.densities.bits import LEVELS, Dequantisation, bits_per_dim, from_unit, to_levels
from dracones.densities.density import Density
from dracones.densities.flow_density import FlowDensity
from dracones.densities.glow import Glow
from dracones.densities.pixelcnn import PixelCNN
from dracones.densities.realnvp import RealNVP
from dracones.densities.registry import check_options, create, from_config, names, presets, register
from dracones.densities.tabular import TabularFlow, create_tabular
from dracones.densities.vae import VAE

__all__ = [
    "LEVELS",
    "VAE",
    "Density",
    "Dequantisation",
    "FlowDensity",
    "Glow",
    "PixelCNN",
    "RealNVP",
    "TabularFlow",
    "bits_per_dim",
    "check_options",
    "create",
    "create_tabular",
    "from_config",
    "from_unit",
    "names",
    "presets",
    "register",
    "to_levels",
]
