"""What each method exports to, as far as it was measured."""

_BOTH = (
    "ash cflow dice energy entropy fastflow feature_density gen knn mahalanobis max_logit msflow msp padim patchcore "
    "pixelcnn react realnvp relative_mahalanobis residual scale vae vim"
)
_ONE = "csflow differnet embedding_flow ensemble glow"
MEASURED = dict.fromkeys(_BOTH.split(), "onnx, xml") | dict.fromkeys(_ONE.split(), "onnx")
"""Methods of which `benchmarks/export` holds a file against the detector, and the formats that it held."""

LIMITS = {
    "odin": "no: its score needs gradients",
    "differnet": "onnx: scores alone; its map needs gradients",
}


def exports_to(name: str) -> str:
    """What a method exports to, in words.

    >>> exports_to("padim"), exports_to("odin")
    ('onnx, xml', 'no: its score needs gradients')
    """
    if name in LIMITS:
        return LIMITS[name]
    return MEASURED.get(name, "tried when asked; refused where it would differ")
