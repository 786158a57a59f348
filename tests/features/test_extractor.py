"""Frozen backbones: levels, modes, normalisation, channels."""

import pytest
import timm
import torch
from torch import nn

from dracones.features import FeatureExtractor, adapt_input_kernel
from dracones.features.fusion import fold_batch_norm


def image(channels=3, side=64, seed=0):
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A resnet10t with random but non-trivial statistics, and its file."""
    torch.manual_seed(3)
    model = timm.create_model("resnet10t").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_maps_equal_timms_own_on_normalised_images(resnet):
    model, path = resnet
    reference = timm.create_model("resnet10t", features_only=True, out_indices=(1, 2)).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    x = image()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = reference((x - mean) / std)
    got = FeatureExtractor("resnet10t", levels=(1, 2), weights=path)(x)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_folding_keeps_the_numbers_and_removes_every_batch_norm(resnet):
    model, _ = resnet
    network = timm.create_model("resnet10t", features_only=True)
    network.load_state_dict(model.state_dict(), strict=False)
    network.eval()
    x = image(seed=1)
    with torch.no_grad():
        before = network(x)
        assert fold_batch_norm(network, x[:1]) > 10
        after = network(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_folding_leaves_a_shared_convolution_alone():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.first(y) + self.second(y)

    network = Shared().eval()
    assert fold_batch_norm(network, image()) == 0
    assert isinstance(network.first, nn.BatchNorm2d)


def test_train_mode_and_gradients_never_reach_the_backbone():
    extractor = FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random")
    before = [level.clone() for level in extractor(image())]
    nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.modules())
    x = image().requires_grad_()
    assert not any(level.requires_grad for level in extractor(image()))
    sum(level.square().sum() for level in extractor(x)).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in extractor.parameters())
    for a, b in zip(before, extractor(image()), strict=True):
        assert torch.equal(a, b)


def test_scores_of_an_image_do_not_depend_on_its_batch():
    extractor = FeatureExtractor("mobilenetv1_025", levels=(2,), weights="random")
    x = image()
    torch.testing.assert_close(extractor(x)[0][:1], extractor(x[:1])[0], rtol=1e-5, atol=1e-6)


def test_random_weights_leave_the_global_generator_alone_and_are_always_the_same():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random")
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    second = FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random")
    assert first.fingerprint() == second.fingerprint()


def test_gray_is_seen_as_its_rgb_version():
    gray = image(channels=1)
    one = FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random", channels=1)
    three = FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random")
    assert torch.equal(one(gray)[0], three(gray.expand(-1, 3, -1, -1))[0])


@pytest.mark.parametrize("name", ["resnet10t", "mobilenet_v2"])
@pytest.mark.parametrize("channels", [2, 6])
def test_other_channel_counts_widen_the_first_convolution(name, channels, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(name) if timm.is_model(name) else __import__("torchvision").models.get_model(name)
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    rgb = FeatureExtractor(name, levels=(1,), weights=path)
    wide = FeatureExtractor(name, levels=(1,), weights=path, channels=channels)
    assert wide.report is not None
    assert len(wide.report.adapted) == 1
    assert wide(image(channels=channels))[0].shape == rgb(image())[0].shape
    if channels == 6:  # an image twice over: the response of the kernels is kept
        x = image()
        torch.testing.assert_close(wide(torch.cat((x, x), 1))[0], rgb(x)[0], rtol=1e-3, atol=1e-4)


def test_kernel_of_one_channel_is_the_sum():
    kernel = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adapt_input_kernel(kernel, 1), kernel.sum(1, keepdim=True))
    assert adapt_input_kernel(kernel, 4).shape == (4, 4, 3, 3)


def test_sixteen_bit_steps_survive():
    extractor = FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random", channels=1)
    x = torch.full((1, 1, 64, 64), 0.5)
    finer = x.clone()
    finer[..., 32:, 32:] += 1 / 65535
    assert not torch.equal(extractor(x)[0], extractor(finer)[0])


@pytest.mark.parametrize(
    ("name", "levels", "shapes"),
    [
        ("vit_tiny_patch16_224", (3, 7), [(192, 6, 4), (192, 6, 4)]),
        ("swin_tiny_patch4_window7_224", (0, 1), [(96, 24, 16), (192, 12, 8)]),
        ("convnext_atto", (0, 2), [(40, 24, 16), (160, 6, 4)]),
        ("squeezenet1_1", (1, 2), [(128, 23, 15), (256, 11, 7)]),
        ("alexnet", (-1,), [(256, 2, 1)]),
    ],
)
def test_any_architecture_gives_maps(name, levels, shapes):
    extractor = FeatureExtractor(name, levels=levels, weights="random")
    assert [tuple(level.shape[1:]) for level in extractor(torch.rand(1, 3, 96, 64))] == shapes
    assert extractor.map_sizes(96, 64) == tuple(shape[1:] for shape in shapes)


def test_tokens_reshape_to_the_map_the_patches_came_from():
    extractor = FeatureExtractor("vit_tiny_patch16_224", levels=(0,), weights="random")
    plain, marked = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    marked[..., 48:, 16:32] = 1.0  # the patch in row 3, column 1
    change = (extractor(marked)[0] - extractor(plain)[0]).abs().sum(1)[0]
    assert divmod(int(change.argmax()), 4) == (3, 1)


def test_fixed_size_transformer_says_its_size():
    extractor = FeatureExtractor("cait_xxs24_224", levels=(3,), weights="random")
    with pytest.raises(ValueError, match=r"224x224 only; got 64x64; set size=\(224, 224\)"):
        extractor(image())


def test_pooled_embedding_is_timms():
    model = timm.create_model("resnet10t", num_classes=0)
    extractor = FeatureExtractor("resnet10t", pooled=True, weights="random")
    assert extractor(image())[0].shape == (2, model.num_features)
    assert FeatureExtractor("mobilenet_v2", pooled=True, weights="random")(image())[0].shape == (2, 1280)


def test_a_transformer_says_what_its_patches_ask_of_a_size():
    extractor = FeatureExtractor("vit_tiny_patch16_224", levels=(0,), weights="random")
    assert extractor(torch.rand(1, 3, 32, 64))[0].shape == (1, 192, 2, 4)
    with pytest.raises(ValueError, match=r"patches of 16x16, and 56x56 is no multiple"):
        extractor(torch.rand(1, 3, 56, 56))


def test_bad_input_is_named():
    extractor = FeatureExtractor("mobilenetv1_025", levels=(1, 3), weights="random")
    with pytest.raises(TypeError, match="float images in"):
        extractor(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"expected images \[B, 3, H, W\]; got \[1, 4, 64, 64\].*channels=4"):
        extractor(torch.zeros(1, 4, 64, 64))
    with pytest.raises(ValueError, match=r"8x64 are smaller than one cell of the deepest level .stride 16"):
        extractor(torch.zeros(1, 3, 8, 64))
    with pytest.raises(ValueError, match=r"levels 0 to 4; got \[7\]"):
        FeatureExtractor("mobilenetv1_025", levels=(7,), weights="random")
    with pytest.raises(ValueError, match="distinct"):
        FeatureExtractor("mobilenetv1_025", levels=(1, 1), weights="random")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet19'; nearest names: .*resnet18"):
        FeatureExtractor("resnet19")
    with pytest.raises(ValueError, match="no sequential `features`"):
        FeatureExtractor("googlenet", weights="random")
    with pytest.raises(ValueError, match="no hub has weights for mobilenetv1_075; give a local file"):
        FeatureExtractor("mobilenetv1_075", weights="pretrained")


def test_fingerprint_changes_with_weights_and_levels(resnet):
    _, path = resnet
    prints = {
        FeatureExtractor("resnet10t", levels=(1,), weights=path).fingerprint(),
        FeatureExtractor("resnet10t", levels=(2,), weights=path).fingerprint(),
        FeatureExtractor("resnet10t", levels=(1,), weights="random").fingerprint(),
        FeatureExtractor("resnet10t", levels=(1,), weights="random", channels=1).fingerprint(),
    }
    assert len(prints) == 4
    extractor = FeatureExtractor("resnet10t", levels=(1,), weights="random")
    before = extractor.fingerprint()
    extractor.load_state_dict(FeatureExtractor("resnet10t", levels=(1,), weights=path).state_dict())
    assert extractor.fingerprint() != before
    assert extractor.fingerprint() in prints


def test_torch_still_says_whether_the_processor_has_bfloat16():
    """The only way to ask is a private name of torch; see `computes_bf16`."""
    from dracones.features import computes_bf16

    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)
    assert isinstance(computes_bf16(torch.device("cpu")), bool)
