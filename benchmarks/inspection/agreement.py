"""With the peer's weights copied over, do the maps agree? Reads what `peer/dump.py` wrote.

    python -m benchmarks.inspection.agreement DUMP WEIGHTS

Prints the largest difference between its maps and ours. Its CFLOW subtracts the maximum over the batch from the
log-densities and from the map; ours, the maximum over the training images: the batch's is put in its place.
"""

import argparse
import json

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import dracones
from dracones.flows import AllInOne

PAPERS_FORM = {"normalisation": "image", "padding": "zeros", "heat": "probability"}


def copy_step(step: AllInOne, state: dict[str, Tensor], prefix: str) -> None:
    """One of the peer's all-in-one blocks; it shifts by the offset after scaling, and mixes by a dense matrix."""
    gain = 0.1 * nn.functional.softplus(state[f"{prefix}global_scale"].flatten(), beta=0.5)
    layers = {"0": "first", "2": "last"}
    with torch.no_grad():
        step.affine.log_scale.copy_(gain.log())
        step.affine.shift.copy_(state[f"{prefix}global_offset"].flatten())
        order = state[f"{prefix}w_perm"].flatten(1).argmax(dim=1)
        step.mix.index.copy_(order)
        step.mix.inverse_index.copy_(order.argsort())
        for number in layers:
            weight, bias = (state[f"{prefix}subnet.{number}.{what}"] for what in ("weight", "bias"))
            conditioner = step.coupling.conditioner
            if hasattr(conditioner, "network"):
                layer = conditioner.network[0 if number == "0" else -1]
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            elif number == "0":
                read = conditioner.vector.in_features
                conditioner.vector.weight.copy_(weight[:, :read])
                conditioner.position.weight.copy_(weight[:, read:])
                conditioner.vector.bias.copy_(bias)
            else:
                conditioner.last.weight.copy_(weight)
                conditioner.last.bias.copy_(bias)


def compare(dump: str, weights: str) -> dict[str, float]:
    """Largest absolute difference of heat maps, by method."""
    state = load_file(dump)
    images = state["images"]
    found = {}
    for name, levels in (("fastflow", (1, 2, 3)), ("cflow", (2, 3))):
        extra = {"kernels": "3-1", **PAPERS_FORM} if name == "fastflow" else {}
        method = dracones.create(name, backbone="resnet18", weights=weights, levels=levels, **extra).method
        method.build((3, *images.shape[2:]))
        method.load_backbone()
        for level, flow in enumerate(method.flows):
            for index, step in enumerate(flow.steps):
                copy_step(step, state, f"{name}.{level}.module_list.{index}.")
        method.eval()
        with torch.no_grad():
            if name == "cflow":
                tops = [level.max() for level in method.log_probs(method.extractor(images))]
                method.highest.copy_(torch.stack(tops))
            ours = method(images).map
        theirs = state[f"{name}.map"][:, 0] if state[f"{name}.map"].ndim == 4 else state[f"{name}.map"]
        if name == "cflow":  # it shifts the whole batch's map so that its least is zero
            ours = ours - ours.min()
        found[name] = float((ours - theirs).abs().max())
        found[f"{name}_spread_of_map"] = float(theirs.std())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump")
    parser.add_argument("weights")
    arguments = parser.parse_args()
    print(json.dumps(compare(arguments.dump, arguments.weights)))


if __name__ == "__main__":
    main()
