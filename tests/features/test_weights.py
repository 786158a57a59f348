"""Local weight files: the four real ones, partial ones, wrong ones, dangerous ones."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from dracones.features import FeatureExtractor, read_weights

REAL = {
    "resnet18": ("resnet18_tv_layer123_fp16", (1, 2, 3), (64, 128, 256), ()),
    "mobilenet_v2": ("mobilenet_v2_tv_features_fp16", None, (16, 24, 32, 96, 1280), ()),
    "mobilenetv1_075": (
        "mobilenetv1_075_tf_fp16",
        None,
        (48, 96, 192, 384, 768),
        ("classifier.bias", "classifier.weight"),
    ),
    "squeezenet1_1": ("squeezenet1_1_fp16", None, (64, 128, 256, 512), ("classifier.1.bias", "classifier.1.weight")),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files_load_whole_and_see_a_photograph(name, test_data):
    file, levels, channels, unused = REAL[name]
    extractor = FeatureExtractor(name, levels=levels, weights=test_data / "backbones" / f"{file}.safetensors")
    assert extractor.channels == channels
    assert extractor.report is not None
    assert extractor.report.missing == ()
    assert extractor.report.unexpected == unused
    assert extractor.mean.flatten()[0] == pytest.approx(0.5 if name == "mobilenetv1_075" else 0.485)
    from skimage import data

    photo = torch.from_numpy(data.astronaut()[:256, 100:356].copy()).permute(2, 0, 1)[None] / 255
    deep = extractor(photo)[-1]
    assert torch.isfinite(deep).all()
    untrained = FeatureExtractor(name, levels=levels, weights="random")
    assert untrained.fingerprint() != extractor.fingerprint()
    # Trained and standardised features lie between about 0 and 10; weights put in the wrong place explode or vanish.
    assert 0.02 < float(deep.abs().mean()) < 5


@pytest.mark.data
def test_resnet18_maps_are_torchvisions(test_data):
    from torchvision.models import resnet18

    path = test_data / "backbones" / "resnet18_tv_layer123_fp16.safetensors"
    reference = resnet18().eval()
    reference.load_state_dict(read_weights(path), strict=False)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    y = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(y))))
        expected = [y := layer(y) for layer in (reference.layer1, reference.layer2, reference.layer3)]
    got = FeatureExtractor("resnet18", levels=(1, 2, 3), weights=path)(x)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.data
def test_a_partial_file_is_refused_for_the_level_it_lacks(test_data):
    path = test_data / "backbones" / "resnet18_tv_layer123_fp16.safetensors"
    with pytest.raises(ValueError, match=r"do not fit the backbone: \d+ missing: layer4\.0\.conv1\.weight"):
        FeatureExtractor("resnet18", levels=(3, 4), weights=path)
    with pytest.raises(ValueError, match=r"The file has nothing of layer4: take levels that come before"):
        FeatureExtractor("resnet18", levels=(3, 4), weights=path)
    with pytest.raises(ValueError, match=r"missing.*The file holds bn1\.bias, .*: is it of another backbone\?"):
        FeatureExtractor("mobilenet_v2", weights=path)
    with pytest.raises(ValueError, match=r"layer1\.2\.conv1\.weight.*is it of another backbone\?"):
        FeatureExtractor("resnet34", levels=(1, 2), weights=path)


def test_flattened_and_wrapped_names_match(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("convnext_atto").state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "plain.safetensors")
    names = ("wrapped.pth", "plain.safetensors")
    prints = {FeatureExtractor("convnext_atto", levels=(1,), weights=tmp_path / name).fingerprint() for name in names}
    assert len(prints) == 1
    assert prints != {FeatureExtractor("convnext_atto", levels=(1,), weights="random").fingerprint()}


def test_transformer_file_matches(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(state, tmp_path / "vit.safetensors")
    extractor = FeatureExtractor("vit_tiny_patch16_224", levels=(2,), weights=tmp_path / "vit.safetensors")
    assert extractor.report is not None
    assert {"head.bias", "head.weight", "blocks.11.mlp.fc2.bias"} < set(extractor.report.unexpected)
    assert "blocks.2.mlp.fc2.bias" not in extractor.report.unexpected
    torch.testing.assert_close(
        extractor.backbone.network.model.blocks[2].mlp.fc2.bias.data, state["blocks.2.mlp.fc2.bias"]
    )


def test_a_larger_networks_file_is_refused_by_its_extra_layers(tmp_path):
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.safetensors")
    with pytest.raises(ValueError, match=r"that this architecture does not have: layer1\.2"):
        FeatureExtractor("resnet18", levels=(1,), weights=tmp_path / "resnet34.safetensors")


def test_a_wider_networks_file_is_refused_by_its_shapes(tmp_path):
    state = timm.create_model("mobilenetv1_125").state_dict()
    save_file(state, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"another shape: conv_stem\.weight \[40, 3, 3, 3\], expected \[8, 3"):
        FeatureExtractor("mobilenetv1_025", levels=(1,), weights=tmp_path / "wide.safetensors")


def test_half_precision_is_widened(tmp_path):
    torch.manual_seed(0)
    state = {key: value.half() for key, value in timm.create_model("resnet10t").state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    extractor = FeatureExtractor("resnet10t", levels=(1,), weights=tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in extractor.parameters()} == {torch.float32}


class _Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": _Payload()}))
    with pytest.raises(ValueError, match=r"refused.*could run code.*save_file"):
        read_weights(path)
    torch.save({"conv1.weight": _Payload()}, path)
    with pytest.raises(ValueError, match="refused"):
        FeatureExtractor("resnet18", weights=path)
    assert "code ran" not in capsys.readouterr().out


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        read_weights(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match="no readable safetensors"):
        read_weights(broken)
    other = tmp_path / "weights.h5"
    other.write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected \.safetensors"):
        read_weights(other)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(tmp_path / "empty.pth")
