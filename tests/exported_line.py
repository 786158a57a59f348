"""What tests of exported files share: small pictures, and the command line where there is no torch."""

import subprocess
import sys
import textwrap

import numpy as np


def pictures(count, height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, height)[None, :, None, None] * generator.random((count, 1, 1, channels))
    noise = generator.normal(0, 0.1, (count, height, width, channels))
    return (np.clip(ramp + noise, 0, 1) * 255).round().astype(np.uint8)


_TORCH = ("torch", "torchvision", "timm")
_BLOCKED = """
    import sys

    BLOCKED = {blocked}

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ImportError(f"{{name}} is not to be had here")

    sys.meta_path.insert(0, Blocked())
"""


def without_torch(*arguments):
    """Run a verb in a process that cannot import torch; its standard output."""
    return running("from dracones.cli import main\nmain()\n", *arguments)


def running(code, *arguments, blocked=_TORCH):
    """Run code in a process that cannot import some packages; its standard output."""
    code = textwrap.dedent(_BLOCKED).format(blocked=blocked) + code
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
