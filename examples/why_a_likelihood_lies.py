"""Why a likelihood lies: a flow that learns gravel finds bricks likelier. Which term does it, which rule repairs it?

python examples/why_a_likelihood_lies.py [--out why.html]
"""

import argparse
from pathlib import Path

import dracones
from dracones.anatomy import decompose, density_of, explain, open_sides, page
from dracones.detectors import evaluate

GRAVEL, BRICK = "builtin:gravel?size=16", "builtin:brick?size=16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--out", type=Path, help="also write every analysis as one page")
    arguments = parser.parse_args()
    train = f"{GRAVEL}&count=600&right=0.5"
    fresh, brick = (f"{source}&count={arguments.count}" for source in (f"{GRAVEL}&left=0.5", BRICK))
    detectors = {}
    for rule in ("likelihood", "auto"):
        detector = dracones.create("glow", rule=rule, epochs=arguments.epochs, density={"steps": 4, "hidden": 32})
        detectors[rule] = detector.fit(train)
        found = evaluate(detectors[rule], fresh, brick).image["auroc"]
        print(f"{rule}: AUROC {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})")
    detector = detectors["likelihood"]
    sides = open_sides(fresh, {"brick": brick}, preprocess=detector.preprocess)
    terms = decompose(density_of(detector), sides.normal, sides.others)
    for term in (terms.total, *terms.parts):
        gap = term.gap["brick"]
        print(f"{term.name}: {gap.value:+.0f} nats for brick ({gap.low:+.0f} to {gap.high:+.0f})")
    if arguments.out:
        page(explain(detector, fresh, {"brick": brick})).write(arguments.out)


if __name__ == "__main__":
    main()
