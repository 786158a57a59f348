"""From a folder of good parts to a threshold and heat maps of new ones.

    python examples/folder_to_heatmaps.py GOOD INCOMING --weights resnet18.safetensors [--out heat]

Nothing is trained: PatchCore keeps a memory of good patches of a frozen backbone. `--weights random` works without a
file, and worse. Writes NAME.heat.png and NAME.npy for each incoming image, and prints a line for each.
"""

import argparse
from pathlib import Path

import dracones
from dracones.images import open_images
from dracones.report import write_maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("good")
    parser.add_argument("incoming")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--false-alarm-rate", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path("heat"))
    arguments = parser.parse_args()
    detector = dracones.create(
        "patchcore",
        backbone="resnet18",
        weights=arguments.weights,
        size=(arguments.size, arguments.size),
        calibration_share=0.3,
        validation_share=0.0,
        false_alarm_rate=arguments.false_alarm_rate,
    )
    detector.fit(arguments.good)
    images = open_images(arguments.incoming)
    low, high = detector.heat_range.colours  # of normal images, so that a good part looks calm
    for index, verdict in enumerate(detector.iterate(images)):
        kind = "ANOMALY" if verdict.is_anomaly else "normal"
        print(f"{verdict.path}: {kind}, score {verdict.score:.2f}, p {verdict.p_value:.3f}")
        picture = images.read(index)
        write_maps(arguments.out, verdict.path, verdict.map, images=picture, low=low, high=high, legend=True)


if __name__ == "__main__":
    main()
