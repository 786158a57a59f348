"""What each method exports to, as far as it was measured (`benchmarks/export`)."""

PROVEN = (
    "cflow",
    "differnet",
    "embedding_flow",
    "fastflow",
    "glow",
    "msflow",
    "padim",
    "patchcore",
    "pixelcnn",
    "realnvp",
    "vae",
)
"""Methods of which a file was measured against the detector."""

LIMITS = {
    "odin": "no: its score needs gradients",
    "differnet": "onnx, pt2: scores; its map needs gradients",
}


def exports_to(name: str) -> str:
    """What a method exports to, in words.

    >>> exports_to("padim"), exports_to("odin")
    ('onnx, pt2', 'no: its score needs gradients')
    """
    if name in LIMITS:
        return LIMITS[name]
    return "onnx, pt2" if name in PROVEN else "tried when asked; refused where it would differ"
