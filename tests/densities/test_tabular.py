import json
import math

import pytest
import torch

from dracones.densities import create_tabular
from dracones.densities.latents import autocorrelation, whiteness
from dracones.rules import create
from dracones.training import TrainingConfig, train


def moved(preset, features=5, **overrides):
    """A flow away from the identity."""
    flow = create_tabular(preset, features=features, hidden=16, **overrides)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    flow.standardise(3 + 2 * torch.randn(100, features, generator=generator))
    return flow.eval()


@pytest.mark.parametrize("preset", ["realnvp", "nice", "embeddings", "tiny"])
def test_log_prob_is_the_change_of_variables(preset):
    flow = moved(preset).double()
    vector = torch.randn(1, 5, generator=torch.Generator().manual_seed(1)).double()

    def encode(v):
        return flow.flow.encode((v - flow.mean) / flow.deviation)[0][0]

    jacobian = torch.autograd.functional.jacobian(encode, vector).view(5, 5)
    normal = -0.5 * encode(vector).square().sum() - 2.5 * math.log(2 * math.pi)
    expected = normal + torch.linalg.slogdet(jacobian)[1]
    assert flow.log_prob(vector).item() == pytest.approx(expected.item(), rel=1e-9)
    found = flow.statistics(vector)
    torch.testing.assert_close(found["log_prob"], found["log_prob_latent"] + found["log_det"])


def test_nice_has_one_volume_and_realnvp_has_not():
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert float(moved("nice").statistics(vectors)["log_det"].std()) < 1e-5
        assert float(moved("realnvp").statistics(vectors)["log_det"].std()) > 1e-2


def test_state_and_config_round_trip():
    flow = moved("realnvp")
    config = json.loads(json.dumps(flow.config))
    again = create_tabular(config["preset"], features=config["features"], **config["overrides"])
    again.load_state_dict(flow.state_dict())
    vectors = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval().log_prob(vectors), flow.log_prob(vectors))


def test_weights_come_from_the_seed():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, other = (create_tabular("tiny", features=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_learns_a_correlated_gaussian_to_its_entropy_and_tells_outliers():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.9, 0.3, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0], [0.2, 0.0, 0.8, 0.4]])
    sample = torch.randn(4000, 4, generator=generator) @ mixing.T
    flow = create_tabular("tiny", features=4)
    flow.standardise(sample)
    train(flow, sample, TrainingConfig(epochs=6, batch_size=100, learning_rate=5e-3, device="cpu", seed=0))
    test = torch.randn(2000, 4, generator=generator) @ mixing.T
    entropy = 2 * math.log(2 * math.pi * math.e) + math.log(float(torch.linalg.det(mixing)))
    with torch.no_grad():
        assert -float(flow.log_prob(test).mean()) == pytest.approx(entropy, abs=0.15)
        rule = create("likelihood")
        broken = test[:, [3, 2, 1, 0]]
        inside, outside = rule.score(flow.statistics(test)), rule.score(flow.statistics(broken))
        drawn = flow.sample(4000, generator=generator)
    assert float(outside.median()) > float(torch.quantile(inside, 0.8))
    torch.testing.assert_close(torch.cov(drawn.T), mixing @ mixing.T, atol=0.15, rtol=0.15)


def test_messages():
    with pytest.raises(ValueError, match="no preset 'big'"):
        create_tabular("big", features=4)
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        create_tabular("tiny", features=4, depth=3)
    with pytest.raises(ValueError, match="at least 2 features"):
        create_tabular("tiny", features=1)
    with pytest.raises(ValueError, match="coupling must be"):
        create_tabular("tiny", features=4, coupling="spline")
    flow = create_tabular("tiny", features=4)
    with pytest.raises(ValueError, match=r"expected vectors \[B, 4\], got \[2, 5\]"):
        flow.log_prob(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"cannot give \['level0_log_det'\]"):
        flow.statistics(torch.zeros(2, 4), names=["level0_log_det"])


def test_a_constant_feature_keeps_its_scale():
    flow = create_tabular("tiny", features=3)
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    vectors[:, 1] = 7.0
    flow.standardise(vectors)
    assert flow.deviation[1] == 1
    assert bool(torch.isfinite(flow.log_prob(vectors)).all())


# ---- structure left in latents


def test_autocorrelation_and_whiteness_of_known_fields():
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(autocorrelation(noise).mean()) == pytest.approx(0, abs=0.01)
    assert float(whiteness(noise).exp().mean()) == pytest.approx(1, abs=0.1)  # squared N(0, 1) have mean 1
    smooth = (noise[..., :-1] + noise[..., 1:]) / math.sqrt(2)  # correlation 1/2 with the next column
    right_alone = (smooth[..., :-1] * smooth[..., 1:]).mean()
    assert float(right_alone) == pytest.approx(0.5, abs=0.02)
    assert float(whiteness(smooth).min()) > float(whiteness(noise).max()) + 0.5
    checker = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).mul(2.0).sub(1).expand(1, 1, 8, 8)
    assert float(autocorrelation(checker)) == pytest.approx(0, abs=0.1)  # -1 beside, +1 along the diagonals
    assert float(whiteness(checker)) > 3


def test_latents_of_one_position_are_finite():
    latent = torch.randn(3, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(whiteness(latent)).all())
    assert autocorrelation(latent).shape == (3,)
