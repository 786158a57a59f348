"""What runs on the line: an exported file scored by numpy, Pillow and onnxruntime alone.

`dracones.runtime.load("line.onnx").predict("incoming/")` gives what `Detector.predict` gives.
"""

from dracones.runtime.container import FORMAT, UnfitFileError, seal
from dracones.runtime.detector import ExportedDetector, load
from dracones.runtime.images import LineImages
from dracones.runtime.precision import Change, Precision

__all__ = ["FORMAT", "Change", "ExportedDetector", "LineImages", "Precision", "UnfitFileError", "load", "seal"]
