"""Couplings and their masks: who is read, who is changed, how s is bounded."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from dracones.flows import (
    MLP,
    AdditiveCoupling,
    AffineCoupling,
    AtanScale,
    ConvNet,
    SigmoidScale,
    TanhScale,
    channels,
    checkerboard,
    cycle,
    halves,
)

small = partial(ConvNet, hidden=4)


def moved(coupling, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return coupling.double()


def test_checkerboard_is_the_papers():
    # b[i, j] = ((i % 2) + j) % 2, top-left 0
    expected = [[(i % 2 + j) % 2 == 1 for j in range(5)] for i in range(3)]
    board = checkerboard((2, 3, 5))
    assert board.shape == (2, 3, 5)
    assert board[0].tolist() == board[1].tolist() == expected
    assert torch.equal(checkerboard((2, 3, 5), reverse=True), ~board)


def test_four_steps_of_the_cycle_visit_every_quadrant():
    visited = torch.zeros(1, 6, 8, dtype=torch.int)
    for step in range(4):
        reads, changes = cycle((1, 6, 8), step)
        assert not (reads & changes).any()
        assert torch.equal(changes, cycle((1, 6, 8), step + 1)[0])
        visited += changes
    assert (visited == 1).all()
    assert cycle((1, 6, 8), 0)[0][0, 0, 0]  # top-left is read first
    assert cycle((1, 6, 8), 0)[1][0, 0, -1]  # top-right changed: clockwise


def test_halves_and_channels():
    assert halves((1, 5, 2))[0, :, 0].tolist() == [True, True, False, False, False]
    assert channels(3).tolist() == [True, False, False]
    assert torch.equal(channels(4, reverse=True), ~channels(4))


@pytest.mark.parametrize(
    ("reads", "changes"),
    [
        (checkerboard((2, 4, 4)), None),
        (halves((2, 4, 4), reverse=True), None),
        cycle((2, 4, 4), 2),
        (channels(2), None),
        (torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.3, None),
    ],
    ids=["checkerboard", "halves", "cycle", "channels", "any"],
)
@pytest.mark.parametrize("kind", [AffineCoupling, AdditiveCoupling])
def test_only_what_is_read_has_influence_and_only_what_is_changed_changes(kind, reads, changes):
    coupling = moved(kind(reads, small, changes=changes))
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    z, _ = coupling.encode(x)
    shape = (reads.shape[0], *(1 for _ in range(3 - reads.dim())), *reads.shape[1:])
    reads_, changes_ = (m.reshape(shape).expand(2, 4, 4) for m in (coupling.reads, coupling.changes))
    assert torch.equal(z[0][~changes_], x[0][~changes_])
    assert (z[0][changes_] != x[0][changes_]).all()
    jacobian = torch.autograd.functional.jacobian(lambda v: coupling.encode(v)[0], x).reshape(32, 32)
    off_diagonal = (jacobian - torch.diag(jacobian.diagonal())) != 0
    assert not off_diagonal[~changes_.flatten()].any()
    assert not off_diagonal[:, ~reads_.flatten()].any()
    assert off_diagonal.any()


def test_minus_t_predicts_the_changed_pixels():
    """z = (x + t) exp(s): where x = -t, z is zero whatever s is."""
    coupling = moved(AffineCoupling(checkerboard((1, 4, 4)), small))
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    t = coupling.trace(x)[0].t
    predicted = torch.where(coupling.changes, -t, x)
    z, _ = coupling.encode(predicted)
    assert torch.allclose(z[:, coupling.changes], torch.zeros(()).double(), atol=1e-12)


@pytest.mark.parametrize("shift_first", [True, False])
@pytest.mark.parametrize("mask", [channels(4), checkerboard((4, 3, 3)), torch.tensor([True, False, True, False])])
def test_trace_gives_the_s_and_t_of_the_formula(mask, shift_first):
    coupling = moved(AffineCoupling(mask, small, shift_first=shift_first))
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    (step,) = coupling.trace(x)
    by_formula = (x + step.t) * step.s.exp() if shift_first else x * step.s.exp() + step.t
    torch.testing.assert_close(step.output, by_formula)
    torch.testing.assert_close(step.log_det, step.s.sum((1, 2, 3)))
    torch.testing.assert_close(step.log_det_map, step.s.sum(1))


@pytest.mark.parametrize(
    "scale", [TanhScale(3, limit=2.0), TanhScale(3, learnable=False), AtanScale(1.9), SigmoidScale()]
)
def test_scales_are_bounded_with_finite_gradients(scale):
    raw = torch.tensor([0.0, 1e-20, 1.0, -30.0, 3e4, -3e4, 1e30, -1e30]).repeat(2, 3, 1).requires_grad_()
    s = scale(raw)
    assert torch.isfinite(s).all()
    assert s.abs().max() < 7
    (gradient,) = torch.autograd.grad(s.sum(), raw)
    assert torch.isfinite(gradient).all()


def test_scales_follow_their_papers():
    raw = torch.linspace(-4, 4, 9, dtype=torch.float64)[None, None]
    torch.testing.assert_close(AtanScale(3.0).double()(raw), 3 * 2 / torch.pi * torch.atan(raw / 3))
    torch.testing.assert_close(TanhScale(1).double()(raw), torch.tanh(raw))
    soft = TanhScale(1, limit=2.0, slope=0.1, learnable=False).double()(raw)
    torch.testing.assert_close(soft, 2 * torch.tanh(0.1 * raw))
    glow = SigmoidScale(floor=1e-9).double()(raw)
    torch.testing.assert_close(glow, torch.log(torch.sigmoid(raw + 2)), rtol=1e-6, atol=1e-6)


def test_a_new_coupling_is_the_identity():
    for mask in (channels(4), checkerboard((4, 3, 3))):
        for scale in ("tanh", "atan"):
            x = torch.randn(2, 4, 3, 3)
            z, log_det = AffineCoupling(mask, small, scale=scale).encode(x)
            assert torch.equal(z, x)
            assert torch.equal(log_det, torch.zeros(2))


def test_context_steers_the_coupling_and_its_gradient_returns():
    coupling = moved(AffineCoupling(channels(4), MLP, context_features=3))
    x = torch.randn(2, 4, dtype=torch.float64)
    context = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    z, _ = coupling.encode(x, context)
    assert not torch.equal(z, coupling.encode(x, context + 1)[0])
    assert torch.autograd.grad(z.sum(), context)[0].abs().sum() > 0


def test_context_as_a_map():
    coupling = moved(AffineCoupling(channels(4), small, context_features=2))
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    vector = torch.randn(3, 2, dtype=torch.float64)
    as_map = vector[:, :, None, None].expand(3, 2, 5, 6)
    assert torch.equal(coupling.encode(x, vector)[0], coupling.encode(x, as_map)[0])


def test_a_loaded_mask_takes_effect():
    """Flags and masks belong to the state: a flow built with another mask behaves as the saved one."""
    saved, other = moved(AffineCoupling(channels(4), small)), moved(AffineCoupling(channels(4, reverse=True), small), 1)
    other.load_state_dict(saved.state_dict())
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert torch.equal(other.encode(x)[0], saved.encode(x)[0])


def test_a_module_as_conditioner():
    coupling = AffineCoupling(channels(4), nn.Conv2d(2, 4, 1))
    z, _ = coupling.encode(torch.randn(1, 4, 2, 2))
    assert z.shape == (1, 4, 2, 2)
    assert copy.deepcopy(coupling).conditioner is not coupling.conditioner


def test_channel_couplings_take_maps_of_any_size():
    coupling = moved(AffineCoupling(channels(4), small))
    for size in ((1, 1), (3, 7), (16, 2)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(coupling.decode(coupling.encode(x)[0])[0], x)


def test_a_conditioner_of_the_wrong_size_is_refused():
    message = r"expected the conditioner to give a shape \[1, 4, 2, 2\], 2 per changed channel; got \[1, 2, 2, 2\]"
    with pytest.raises(ValueError, match=message):
        AffineCoupling(channels(4), nn.Conv2d(2, 2, 1)).encode(torch.randn(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"got \[1, 4, 1, 1\]"):
        AffineCoupling(channels(4), nn.Conv2d(2, 4, 2)).encode(torch.randn(1, 4, 2, 2))


def test_masks_that_cannot_work_are_refused():
    with pytest.raises(TypeError, match=r"AffineCoupling: expected boolean masks; got torch.float32"):
        AffineCoupling(torch.ones(4), MLP)
    with pytest.raises(ValueError, match=r"1 positions are both read and changed, which cannot be inverted"):
        AffineCoupling(torch.tensor([True, False]), MLP, changes=torch.tensor([True, True]))
    with pytest.raises(ValueError, match=r"expected two masks of one shape.*reads \[2\] and changes \[3\]"):
        AffineCoupling(torch.tensor([True, False]), MLP, changes=torch.tensor([True, True, False]))
    with pytest.raises(ValueError, match=r"AdditiveCoupling: the mask changes nothing"):
        AdditiveCoupling(torch.tensor([True, True]), MLP)
    with pytest.raises(ValueError, match=r"the mask reads nothing"):
        AdditiveCoupling(torch.tensor([False, False]), MLP)
    with pytest.raises(ValueError, match=r"expected a module or one of tanh, atan, sigmoid; got 'relu'"):
        AffineCoupling(channels(4), MLP, scale="relu")
    with pytest.raises(ValueError, match=r"expected a floor between 0 and 1; got 0"):
        SigmoidScale(floor=0)
