"""Runs in the peer's environment: its FastFlow and CFLOW with some weights, their maps, all in one safetensors file.

/path/to/peer/bin/python benchmarks/inspection/peer/dump.py WEIGHTS OUT
"""

import sys

import torch
from anomalib.models.image.cflow.torch_model import CflowModel
from anomalib.models.image.fastflow.torch_model import FastflowModel
from safetensors.torch import load_file, save_file


def main(weights: str, out: str) -> None:
    """Both models see the same four images; normalised as the backbone wants."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 128, 128)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    found = {"images": images}
    fastflow = FastflowModel((128, 128), "resnet18", pre_trained=False, conv3x3_only=False)
    fastflow.feature_extractor.load_state_dict(load_file(weights), strict=False)
    cflow = CflowModel("resnet18", ["layer2", "layer3"], pre_trained=False, fiber_batch_size=64)
    cflow.encoder.feature_extractor.load_state_dict(load_file(weights), strict=False)
    for name, model, flows in (("fastflow", fastflow, fastflow.fast_flow_blocks), ("cflow", cflow, cflow.decoders)):
        for key, parameter in flows.named_parameters():
            if "w_perm" not in key:
                with torch.no_grad():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        model.eval()
        with torch.no_grad():
            found[f"{name}.map"] = model((images - mean) / std).anomaly_map
        found.update({f"{name}.{key}": value for key, value in flows.state_dict().items()})
    save_file({key: value.contiguous() for key, value in found.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
