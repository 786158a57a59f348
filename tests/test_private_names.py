"""Names of other libraries that are private there and have no public way: each is here with what breaks if it goes.

A new version of torch or timm that moves or changes one fails here first, by its name.
"""

import inspect
import re
from pathlib import Path

import torch
from torch import nn
from torch.autograd import forward_ad

import dracones


def test_batch_norms_of_every_dimension_are_known_by_their_base():
    """`flows/constant_memory.py`: running statistics would be updated twice where a layer is computed anew."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for norm in (nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)):
        assert isinstance(norm, _BatchNorm)
        assert {"track_running_stats", "running_mean", "running_var"} <= set(dir(norm))
    assert not isinstance(nn.GroupNorm(1, 2), _BatchNorm)


def test_dropouts_of_every_kind_are_known_by_their_base():
    """`flows/constant_memory.py`: a dropout that is not refused makes gradients of another network, silently."""
    from torch.nn.modules.dropout import _DropoutNd

    for kind in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        dropout = kind(0.25)
        assert isinstance(dropout, _DropoutNd)
        assert dropout.p == 0.25


def test_the_constructors_that_take_a_device_are_listed():
    """`features/hollow.py`: a constructor that is not listed takes memory before the budget of a file is asked."""
    from torch.utils._device import _device_constructors

    relied_on = {torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange, torch.randperm}
    left_out = {torch.empty, torch.empty_strided, torch.tensor, torch.as_tensor}
    assert relied_on | left_out <= set(_device_constructors())


def test_function_transforms_and_forward_mode_are_told():
    """`flows/autodiff.py`: a hand-written backward under vmap or forward mode fails, or gives wrong derivatives."""
    seen = []

    def asked(x):
        seen.append(torch._C._are_functorch_transforms_active())
        return x.sum()

    asked(torch.ones(2))
    torch.func.grad(asked)(torch.ones(2))
    torch.vmap(asked)(torch.ones(2, 2))
    assert seen == [False, True, True]
    assert forward_ad._current_level < 0
    with forward_ad.dual_level():
        assert forward_ad._current_level >= 0
    assert forward_ad._current_level < 0


def test_the_processor_is_asked_for_bfloat16():
    """`features/precision.py`: `precision="auto"` could not tell whether bfloat16 is faster than float32."""
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)


def test_token_maps_of_a_transformer_are_made_by_timm():
    """`features/architectures.py`: levels of a transformer, through its own final norm."""
    import timm
    from timm.models._features import FeatureGetterNet

    assert {"out_indices", "norm"} <= set(inspect.signature(FeatureGetterNet).parameters)
    whole = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, pretrained=False).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        (last,) = FeatureGetterNet(whole, out_indices=(1,), norm=True)(image)
        tokens = whole.forward_features(image)[:, whole.num_prefix_tokens :]
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens)


def test_a_mobilenet_of_version_one_takes_its_width_and_tensorflows_padding():
    """`features/architectures.py`: the widths of MobileNet-v1 below 1, which timm has no name for."""
    from timm.models.efficientnet import _gen_mobilenet_v1

    network = _gen_mobilenet_v1("mobilenetv1_100", 0.25, pretrained=False, pad_type="same", bn_eps=1e-3, in_chans=1)
    stem = network.conv_stem
    assert (stem.in_channels, network.bn1.eps) == (1, 1e-3)
    assert {"mean", "std"} <= set(network.pretrained_cfg)
    assert network.eval()(torch.rand(1, 1, 33, 33)).shape == (1, 1000)


def test_lists_of_tensors_are_copied_and_blended_in_place():
    """`training/guard.py` and `training/averaging.py`: the copy to roll back to, and the running mean of weights."""
    live, kept = [torch.ones(2), torch.ones(3)], [torch.zeros(2), torch.zeros(3)]
    torch._foreach_lerp_(kept, live, 0.25)
    assert [each.tolist() for each in kept] == [[0.25] * 2, [0.25] * 3]
    torch._foreach_copy_(kept, live)
    assert all(torch.equal(one, other) for one, other in zip(kept, live, strict=True))
    assert kept[0] is not live[0]


def test_every_private_name_that_the_package_takes_is_here():
    """A further one needs its own test above."""
    private = re.compile(
        r"^\s*from (?!dracones|_)\S+ import [^#\n]*?\b(_[a-z]\w+|_[A-Z]\w+)"
        r"|^\s*from (?:torch|timm|torchvision)\S*\.(_\w+)\S* import"
        r"|\b(?:torch|forward_ad|nn|F)(?:\.\w+)*?\.(_[a-z]\w+|_[A-Z]\w*\._\w+)",
        re.MULTILINE,
    )
    found = {
        name
        for path in Path(dracones.__file__).parent.rglob("*.py")
        for names in private.findall(path.read_text(encoding="utf-8"))
        for name in names
        if name
    }
    here = Path(__file__).read_text(encoding="utf-8")
    assert {"_BatchNorm", "_DropoutNd", "_is_avx512_bf16_supported", "_current_level"} <= found
    assert sorted(name for name in found if name not in here) == []
