"""Why a likelihood lies: every analysis of Nalisnick et al. (2019) and Kirichenko et al. (2020) as one call.

Each function takes a density, normal images and named sets of others ([N, C, H, W] in [0, 1]; `open_sides` opens and
treats them alike) and returns a `Finding`: numbers with 95 % intervals, a table, a figure, JSON.
"""

from dracones.anatomy.co_adaptation import CoAdaptation, co_adaptation
from dracones.anatomy.complexity import Complexity, complexity
from dracones.anatomy.couplings import Couplings, couplings
from dracones.anatomy.curvature import hessian_vector_products, linear_gains, published_gains
from dracones.anatomy.decomposition import Decomposition, Term, decompose
from dracones.anatomy.ensembles import Ensemble, ensemble
from dracones.anatomy.estimates import auroc_estimate, correlation_estimate, difference_estimate, mean_estimate
from dracones.anatomy.explain import Explanation, analyses, density_of, explain
from dracones.anatomy.finding import Finding
from dracones.anatomy.graying import Graying, grayed, graying
from dracones.anatomy.inductive_bias import InductiveBias, inductive_bias
from dracones.anatomy.latents import Latents, latent_images
from dracones.anatomy.needs import UnsupportedError
from dracones.anatomy.negative_training import NegativeTraining, negative_training
from dracones.anatomy.page import page
from dracones.anatomy.repairs import Repairs, repairs
from dracones.anatomy.second_order import SecondOrder, second_order
from dracones.anatomy.sensitivity import Sensitivity, sensitivity, trivial_images
from dracones.anatomy.sides import Sides, open_sides
from dracones.anatomy.verdict import Verdict, judge

__all__ = [
    "CoAdaptation",
    "Complexity",
    "Couplings",
    "Decomposition",
    "Ensemble",
    "Explanation",
    "Finding",
    "Graying",
    "InductiveBias",
    "Latents",
    "NegativeTraining",
    "Repairs",
    "SecondOrder",
    "Sensitivity",
    "Sides",
    "Term",
    "UnsupportedError",
    "Verdict",
    "analyses",
    "auroc_estimate",
    "co_adaptation",
    "complexity",
    "correlation_estimate",
    "couplings",
    "decompose",
    "density_of",
    "difference_estimate",
    "ensemble",
    "explain",
    "grayed",
    "graying",
    "hessian_vector_products",
    "inductive_bias",
    "judge",
    "latent_images",
    "linear_gains",
    "mean_estimate",
    "negative_training",
    "open_sides",
    "page",
    "published_gains",
    "repairs",
    "second_order",
    "sensitivity",
    "trivial_images",
]
