"""CFLOW's step in one piece: the numbers of the general step, and the gradient of its formula."""

import pytest
import torch
from torch import nn

from dracones.flows import AllInOne
from dracones.methods.feature_flows.vector_step import PositionedMLP, positioned_step


def step(channels, dtype=torch.float64):
    torch.manual_seed(0)

    def conditioner(inputs, out):
        return PositionedMLP(inputs, out, hidden=7, context_features=4)

    made = AllInOne(channels, conditioner, clamp=1.9, context_features=4, generator=torch.Generator().manual_seed(0))
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.8)
    return made.to(dtype)


def inputs(channels, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, channels, dtype=dtype, generator=generator)
    return x, torch.randn(6, 4, dtype=dtype, generator=generator)


@pytest.mark.parametrize("channels", [4, 5])
def test_same_numbers_as_the_general_step(channels):
    made, (x, codes) = step(channels), inputs(channels)
    for found, expected in zip(positioned_step(made, x, codes), made.encode_map(x, codes), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [4, 5])
def test_gradient_written_out_is_the_gradient(channels):
    made, (x, codes) = step(channels), inputs(channels)

    def run(x, *_):
        return positioned_step(made, x, codes)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *made.parameters()), atol=1e-6)


def test_products_in_half_precision_leave_the_rest_in_single():
    made, (x, codes) = step(4, torch.float32), inputs(4, torch.float32)
    exact = positioned_step(made, x, codes)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = positioned_step(made, x.requires_grad_(), codes)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close((z, log_det), exact, rtol=0.03, atol=0.03)
    assert not torch.equal(z, exact[0])  # products were rounded
    (z.square().sum() - log_det.sum()).backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in made.parameters()
    )


def test_other_steps_are_refused():
    made = AllInOne(4, lambda inputs, out: nn.Linear(inputs, out), clamp=1.0)
    with pytest.raises(TypeError, match="expected a PositionedMLP and a permutation"):
        positioned_step(made, *inputs(4, torch.float32))
