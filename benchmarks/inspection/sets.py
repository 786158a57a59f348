"""The two inspection sets, unpacked into MVTec's folder layout."""

import os
import shutil
import tarfile
from pathlib import Path

SETS = ("screw", "mtd")


def data_root() -> Path:
    """The folder that DRACONES_TEST_DATA names."""
    if "DRACONES_TEST_DATA" not in os.environ:
        raise SystemExit("set DRACONES_TEST_DATA to the folder that holds mvtec/, mtd/ and backbones/")
    return Path(os.environ["DRACONES_TEST_DATA"])


def unpacked(name: str, folder: Path) -> Path:
    """Root of a set in MVTec's layout; unpacked once.

    MTD has its own layout. Its split is the published one of DifferNet: the 761 listed MT_Free images train, the other
    191 and all 392 defective images test. Images differ in size and shape (about 100 to 800 pixels a side): every
    method sees them squeezed to one square (antialiased), as DifferNet does; heat maps are brought back to each
    image's own size and compared with the mask there.
    """
    root = folder / name
    if root.is_dir():
        return root
    working = folder / f".{name}"
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    if name == "screw":
        with tarfile.open(data_root() / "mvtec" / "screw_256.tar") as archive:
            archive.extractall(working, filter="data")
        (working / "screw").rename(root)
    else:
        with tarfile.open(data_root() / "mtd" / "magnetic_tile_defect_original.tar") as archive:
            archive.extractall(working, filter="data")
        _arrange_mtd(working)
        (working / "arranged").rename(root)
    shutil.rmtree(working, ignore_errors=True)
    return root


def _arrange_mtd(source: Path) -> None:
    target = source / "arranged"
    listed = {Path(line).stem for line in (source / "mtd_train_filenames.txt").read_text().split()}
    for image in sorted((source / "MT_Free" / "Imgs").glob("*.jpg")):
        part = "train" if image.stem in listed else "test"
        _move(image, target / part / "good" / image.name)
    for kind in ("Blowhole", "Break", "Crack", "Fray", "Uneven"):
        for image in sorted((source / f"MT_{kind}" / "Imgs").glob("*.jpg")):
            _move(image, target / "test" / kind.lower() / image.name)
            mask = target / "ground_truth" / kind.lower() / f"{image.stem}_mask.png"
            _move(image.with_suffix(".png"), mask)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
