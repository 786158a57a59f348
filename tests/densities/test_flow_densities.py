import json
import math

import pytest
import torch

from dracones.densities import create, from_config, names, presets
from dracones.densities.flow_density import FlowDensity

SMALL = {
    "glow": {"steps": 2, "hidden": 8},
    "glow-additive": {"steps": 2, "hidden": 8, "coupling": "additive"},
    "glow-highway": {"steps": 1, "hidden": 8, "conditioner": "highway", "lu": False, "bottleneck": 4},
    "realnvp": {"hidden": 4, "blocks": 1},
    "realnvp-checkerboard": {"masks": "checkerboard", "couplings": 2, "hidden": 4, "blocks": 1},
    "realnvp-horizontal": {"masks": "horizontal", "couplings": 2, "hidden": 4, "blocks": 1, "bottleneck": 3},
    "realnvp-cycle": {"masks": "cycle", "couplings": 4, "hidden": 4, "blocks": 1},
}
SHAPE = (2, 8, 8)


def make(kind, shape=SHAPE, seed=0):
    """A small density of this kind, moved away from the identity so that every term counts."""
    density = create(kind.split("-")[0], image_shape=shape, seed=seed, **SMALL[kind])
    generator = torch.Generator().manual_seed(1)
    density.train()
    density.training_loss(images(16, shape), generator=generator)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return density.eval()


def images(count, shape=SHAPE, seed=2):
    levels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed))
    return levels / 255


@pytest.fixture(params=SMALL)
def kind(request):
    return request.param


def test_log_prob_is_the_change_of_variables(kind):
    """Against autograd's Jacobian of the whole encoder, in float64."""
    density = make(kind, shape=(1, 4, 4)).double()
    image = images(1, (1, 4, 4)).double()
    points, _ = density.dequantise(image)

    def encode(y):
        return torch.cat([z.flatten(1) for z in density.flow.encode(density.logit.encode(y)[0])[0]], 1)

    jacobian = torch.autograd.functional.jacobian(encode, points).view(16, 16)
    z = encode(points)
    z = z.detach()
    expected = -0.5 * z.square().sum() - 8 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
    expected = expected - 16 * math.log(256)
    assert density.log_prob(image).item() == pytest.approx(expected.item(), rel=1e-9)
    assert density.log_prob_at(points).item() == pytest.approx(expected.item(), rel=1e-6)


def test_terms_add_up_per_level(kind):
    density = make(kind)
    found = density.statistics(images(3))
    levels = range(density.levels)
    assert tuple(found) == density.available_statistics
    assert all(values.shape == (3,) for values in found.values())
    torch.testing.assert_close(found["log_prob"], found["log_prob_latent"] + found["log_det"])
    latent = sum(found[f"level{i}_log_prob_latent"] for i in levels)
    torch.testing.assert_close(found["log_prob_latent"], latent)
    log_det = sum(found[f"level{i}_log_det"] for i in levels) + found["input_log_det"]
    torch.testing.assert_close(found["log_det"], log_det - 128 * math.log(256), rtol=1e-5, atol=1e-3)


def test_decode_gives_back_the_8_bit_image(kind):
    density = make(kind).double()
    given = images(3).double()
    decoded = density.decode(density.encode(given))
    assert torch.equal((decoded * 255).round(), (given * 255).round())
    rows = density.encode_flat(given)
    points, _ = density.dequantise(given)
    torch.testing.assert_close(density.decode_flat(rows), points.flatten(1), rtol=1e-6, atol=1e-7)


def test_score_depends_on_the_image_alone(kind):
    density = make(kind)
    batch = images(5)
    together = density.log_prob(batch)
    alone = torch.cat([density.log_prob(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-2)
    assert torch.equal(together, density.log_prob(batch))
    assert density.log_prob(batch[:0]).shape == (0,)


def test_state_and_config_round_trip_through_json(kind):
    density = make(kind)
    config = json.loads(json.dumps(density.config))
    again = from_config(config)
    again.load_state_dict(density.state_dict())
    assert again.config == density.config
    assert torch.equal(again.eval().log_prob(images(3)), density.log_prob(images(3)))


def test_samples_are_8_bit_images_and_follow_the_generator(kind):
    density = make(kind)
    first = density.sample(4, generator=torch.Generator().manual_seed(5))
    assert first.shape == (4, *SHAPE)
    assert torch.equal(first, density.sample(4, generator=torch.Generator().manual_seed(5)))
    assert torch.equal((first * 255).round() / 255, first)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone(kind):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    name = kind.split("-")[0]
    one, two = (create(name, image_shape=SHAPE, seed=3, **SMALL[kind]) for _ in range(2))
    other = create(name, image_shape=SHAPE, seed=4, **SMALL[kind])
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_lowers_bits_per_dim():
    """Smooth images: a minute's worth of steps in miniature; far below the 8 bits of ignorance."""
    density = create("glow", image_shape=(1, 8, 8), steps=2, hidden=16)
    ramp = torch.linspace(0.3, 0.6, 8)[None, None, None] + torch.linspace(0, 0.2, 64)[:, None, None, None]
    batch = ramp.expand(64, 1, 8, 8).contiguous()
    optimizer = torch.optim.Adam(density.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    density.train()
    for _ in range(60):
        optimizer.zero_grad()
        density.training_loss(batch, generator=generator).backward()
        optimizer.step()
    assert float(density.eval().bits_per_dim(batch).mean()) < 3.0


def test_constant_volume_glow_has_one_volume_for_all_images():
    density = make("glow-additive")
    found = density.statistics(images(4))
    inner = found["level0_log_det"] + found["level1_log_det"]
    torch.testing.assert_close(inner, inner[:1].expand(4))
    affine = make("glow").statistics(images(4))["level0_log_det"]
    assert float(affine.std()) > 1e-3


def test_bottleneck_passes_l_numbers_on():
    """The Jacobian of a conditioner with l = 3 has rank 3 at most."""
    density = make("realnvp-horizontal", shape=(1, 4, 4)).double()
    coupling = density.flow.bijection[0]
    x = images(1, (1, 4, 4)).double()
    jacobian = torch.autograd.functional.jacobian(coupling.conditioner, x).reshape(32, 16)
    assert int(torch.linalg.matrix_rank(jacobian, rtol=1e-9)) <= 3


def test_cycle_information_needs_four_couplings_to_come_back():
    density = create("realnvp", image_shape=(1, 4, 4), masks="cycle", couplings=8, hidden=4, blocks=1)
    reads = [coupling.reads for coupling in density.flow.bijection]
    changes = [coupling.changes for coupling in density.flow.bijection]
    for k in range(8):
        assert torch.equal(changes[k], reads[(k + 1) % 8])
        assert torch.equal(reads[k], reads[(k + 4) % 8])
        assert not bool((changes[k] & changes[(k + 1) % 8]).any())


@pytest.mark.parametrize(("scales", "couplings"), [(2, 10), (3, 16)])
def test_multiscale_realnvp_has_the_papers_number_of_couplings(scales, couplings):
    from dracones.flows import AffineCoupling

    density = create("realnvp", image_shape=(1, 8, 8), scales=scales, hidden=2, blocks=1)
    found = [module for module in density.modules() if isinstance(module, AffineCoupling)]
    assert len(found) == couplings


@pytest.mark.parametrize(
    ("name", "preset", "shape", "published", "ours_more"),
    [
        # authors: the log-scale's limit per changed channel is weight-normed (two numbers for our one, 96 in all);
        # ours: the zero convolutions have a learnt gain per output (192), as in Kingma and Dhariwal's code
        ("glow", "kirichenko-fashionmnist", (1, 28, 28), 69_378_048, 96),
        # the weight-normed limits again: one number more for each of the 129 changed channels
        ("realnvp", "kirichenko-celeba", (3, 32, 32), 87_859_080, -129),
    ],
)
def test_papers_sizes(name, preset, shape, published, ours_more):
    density = create(name, preset, image_shape=shape)
    count = sum(parameter.numel() for parameter in density.parameters())
    assert count - published == ours_more


def test_every_preset_is_documented_by_its_options_and_buildable_where_small():
    assert {"glow", "realnvp", "vae", "pixelcnn"} <= set(names())
    for name in ("glow", "realnvp"):
        assert "tiny" in presets(name)
    for preset in ("tiny", "checkerboard8", "horizontal", "cycle", "bottleneck"):
        density = create("realnvp", preset, image_shape=(1, 4, 4), hidden=2, blocks=1)
        assert isinstance(density, FlowDensity)


def test_messages():
    with pytest.raises(ValueError, match="unknown density 'gloww'"):
        create("gloww", image_shape=SHAPE)
    with pytest.raises(ValueError, match="has no preset 'huge'; It has tiny"):
        create("glow", "huge", image_shape=SHAPE)
    with pytest.raises(ValueError, match="no option 'step'; did you mean 'steps'"):
        create("glow", image_shape=SHAPE, step=3)
    with pytest.raises(ValueError, match="2 levels need sides that can be halved 2 times, got 6x8"):
        create("glow", image_shape=(1, 6, 8), levels=2)
    with pytest.raises(ValueError, match="masks must be multiscale"):
        create("realnvp", image_shape=SHAPE, masks="vertical")
    with pytest.raises(ValueError, match=r"density 'glow': image_shape must be .* got \(28, 28\)"):
        create("glow", image_shape=(28, 28))
    with pytest.raises(ValueError, match="image_shape must be"):
        FlowDensity((28, 28), None, levels=1)
    density = make("glow")
    with pytest.raises(ValueError, match=r"expected images \[B, 2, 8, 8\], got \[1, 1, 8, 8\]"):
        density.log_prob(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"cannot give the statistics \['entropy'\]"):
        density.statistics(images(1), names=["entropy"])


def test_sides_that_cannot_be_halved_name_sizes_that_go():
    with pytest.raises(ValueError, match=r"got 29x31; cut them to 28x28 \(crop=\[28, 28\]\) or resize them"):
        create("glow", image_shape=(1, 29, 31), levels=2)
    with pytest.raises(ValueError, match=r"cut them to 28x30 \(crop=\[28, 30\]\)"):
        create("glow", image_shape=(1, 29, 31))
    with pytest.raises(ValueError, match=r"got 29x31; crop or resize them to multiples of 2"):
        create("realnvp", image_shape=(1, 29, 31))


def test_a_gradient_that_rounding_would_make_zero_is_refused():
    density = create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    images = torch.rand(2, 1, 8, 8).requires_grad_()
    for ask in (density.log_prob, density.bits_per_dim, density.statistics):
        with pytest.raises(ValueError, match=r"their gradient would be zero.*log_prob_at"):
            ask(images)
    (gradient,) = torch.autograd.grad(density.log_prob_at(images * 0.9 + 0.05).sum(), images)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert torch.isfinite(density.log_prob(images)).all()


def test_a_split_prior_is_the_gaussian_of_what_leaves_given_what_stays():
    """log p of three levels by hand: each leaving half under the mean and deviation that its convolution gives."""
    torch.manual_seed(0)
    options = {"image_shape": (1, 8, 8), "levels": 3, "steps": 1, "hidden": 4}
    plain, learnt = create("glow", **options), create("glow", **options, split_prior=True)
    levels = learnt.flow.bijection.levels
    priors = [level.layers[-1] for level in levels[:-1]]
    assert [len(level.layers) for level in levels] == [5, 5, 4]
    state = {name: value for name, value in learnt.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict(state)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        plain.flow.log_prob(x), learnt.flow.log_prob(x)  # ActNorm looks at its first batch
        assert torch.allclose(plain.flow.log_prob(x), learnt.flow.log_prob(x)), "it starts as N(0, 1)"
        for prior in priors:
            for parameter in prior.conditioner.parameters():
                parameter.normal_(0, 0.2)
        multiscale = plain.flow.bijection
        kept, expected, log_det = x, 0.0, 0.0
        for index, level in enumerate(multiscale.levels):
            kept, gained = level.encode(kept)
            log_det = log_det + gained
            if index == len(multiscale.levels) - 1:
                expected = expected + torch.distributions.Normal(0, 1).log_prob(kept).flatten(1).sum(1)
                break
            stays, leaves = kept.chunk(2, 1)
            raw = priors[index].conditioner(stays)
            negative_log_scale, negative_mean = raw.chunk(2, 1)
            gaussian = torch.distributions.Normal(-negative_mean, (-negative_log_scale).exp())
            expected = expected + gaussian.log_prob(leaves).flatten(1).sum(1)
            kept = stays
        found = learnt.flow.log_prob(x)
    torch.testing.assert_close(found, expected + log_det, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found, plain.flow.log_prob(x))
    with torch.no_grad():
        back = learnt.flow.bijection.decode(learnt.flow.bijection.encode(x)[0])[0]
    torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-4)
