"""What each method exports to, as far as it was measured."""

MEASURED = {"fastflow": "onnx", "glow": "onnx", "padim": "onnx", "patchcore": "onnx", "vae": "onnx"}
"""Methods of which `benchmarks/export` holds a file against the detector, and the formats that it held."""

LIMITS = {
    "odin": "no: its score needs gradients",
    "differnet": "onnx: scores alone; its map needs gradients",
}


def exports_to(name: str) -> str:
    """What a method exports to, in words.

    >>> exports_to("padim"), exports_to("odin")
    ('onnx', 'no: its score needs gradients')
    """
    if name in LIMITS:
        return LIMITS[name]
    return MEASURED.get(name, "tried when asked; refused where it would differ")
