"""Any timm name as a backbone: it gives maps whose sizes follow from its strides, or is refused by a sentence.

python -m benchmarks.robustness.backbones --count 60 -o benchmarks/robustness/results/backbones.json

Names are spread evenly over all families that timm has, the shortest name of each. Networks are built without memory
(`dracones.methods.hollow`), so that giants cost nothing; shapes are what is asked of them.
"""

import argparse
import warnings
from collections import Counter
from pathlib import Path

import timm
from timm.models import _registry

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from dracones.features import FeatureExtractor
from dracones.methods import Limits, hollow


def spread(count: int) -> list[str]:
    """So many names, from as many families (timm's modules) as there are."""
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(_registry._model_to_module[name], []).append(name)
    first = [min(names, key=lambda name: (len(name), name)) for _, names in sorted(families.items())]
    step = max(len(first) / count, 1)
    return [first[int(i * step)] for i in range(min(count, len(first)))]


def judge(name: str) -> tuple[str, str]:
    """What becomes of a name: works, refused or bare, and in which words."""
    try:
        with warnings.catch_warnings(), hollow(Limits(tensors=10**6, bytes=2 * 10**9)):
            warnings.simplefilter("ignore")
            extractor = FeatureExtractor(name, weights="random")
            side = extractor.fixed_size or _side(extractor)
            sizes = extractor.map_sizes(*side)
    except (ValueError, TypeError) as error:
        return ("refused" if name in str(error) else "bare"), str(error)[:300]
    except Exception as error:
        return "bare", f"{type(error).__name__}: {str(error)[:300]}"
    expected = [(round(side[0] / s), round(side[1] / s)) for s in extractor.strides]
    # Convolutions without padding lose a few cells at the rim.
    near = all(
        abs(a - b) <= 3 for got, want in zip(sizes, expected, strict=True) for a, b in zip(got, want, strict=True)
    )
    said = (
        f"levels {list(extractor.levels or ())}, strides {list(extractor.strides)}, channels {list(extractor.channels)}"
    )
    return ("works" if near else "bare"), said if near else f"{said}, but maps of {side} are {sizes}"


def _side(extractor: FeatureExtractor) -> tuple[int, int]:
    """The first size from 224 on that both the patches and the deepest stride divide."""
    cells = [max(cell, max(extractor.strides, default=1)) for cell in extractor.patch]
    height, width = (next(side for side in range(224, 2048) if side % cell == 0) for cell in cells)
    return height, width


def main() -> None:
    """Judge, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    record, watch = provenance(), Stopwatch()
    found = {name: judge(name) for name in spread(arguments.count)}
    record |= {
        "command": f"python -m benchmarks.robustness.backbones --count {arguments.count}",
        "timm": timm.__version__,
        "names": len(found),
        "outcomes": dict(Counter(outcome for outcome, _ in found.values())),
        "found": {name: ": ".join(words) for name, words in found.items()},
        **watch.read(),
    }
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
