"""Properties that every bijection has; the registry in conftest.py lists them all."""

import copy

import pytest
import torch
from safetensors.torch import load, save

from dracones.flows import Flow


def log_det_of(function, point):
    """log|det| of the Jacobian of one sample's map, by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), point)
    size = point.numel()
    assert jacobian.numel() == size * size
    return torch.linalg.slogdet(jacobian.reshape(size, size))[1]


def test_decode_inverts_encode(case):
    bijection, x, context = case.build(), case.input(3), case.condition(3)
    z, log_det = bijection.encode(x, context)
    back, same_log_det = bijection.decode(z, context)
    assert log_det.shape == same_log_det.shape == (3,)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(same_log_det, log_det, rtol=1e-9, atol=1e-9)


def test_encode_inverts_decode(case):
    bijection, context = case.build(), case.condition(2)
    z, _ = bijection.encode(case.input(2, seed=3), context)
    z = z.detach() if case.values != "real" else z.detach() + 0.1
    x, log_det = bijection.decode(z, context)
    again, same_log_det = bijection.encode(x, context)
    torch.testing.assert_close(again, z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(same_log_det, log_det, rtol=1e-8, atol=1e-8)


def test_log_det_is_the_jacobians(case):
    bijection, x, context = case.build(), case.input(1), case.condition(1)
    z, log_det = bijection.encode(x, context)
    expected = log_det_of(lambda v: bijection.encode(v, context)[0], x[0])
    torch.testing.assert_close(log_det[0], expected, rtol=1e-8, atol=1e-8)
    decoded = log_det_of(lambda v: bijection.decode(v, context)[0], z[0].detach())
    torch.testing.assert_close(bijection.decode(z, context)[1][0], -decoded, rtol=1e-7, atol=1e-7)


def test_shares_of_positions_sum_to_the_log_det(case):
    bijection, x, context = case.build(), case.input(2), case.condition(2)
    z, log_det = bijection.encode(x, context)
    same, shares = bijection.encode_map(x, context)
    torch.testing.assert_close(same, z)
    assert shares.shape == (2, *x.shape[2:])
    torch.testing.assert_close(shares.reshape(2, -1).sum(1), log_det)


def test_single_precision(case):
    double, single = case.build(), case.build(torch.float32)
    x, context = case.input(4), case.condition(4)
    z, log_det = double.encode(x, context)
    z32, log_det32 = single.encode(x.float(), None if context is None else context.float())
    assert z32.dtype == log_det32.dtype == torch.float32
    torch.testing.assert_close(z32.double(), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det32.double(), log_det, rtol=1e-4, atol=1e-4)
    back, _ = single.decode(z32, None if context is None else context.float())
    torch.testing.assert_close(back.double(), x, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_gives_the_same_numbers(case):
    bijection, other = case.build(seed=0), case.build(seed=1)
    x, context = case.input(2), case.condition(2)
    state = load(save({k: v.contiguous() for k, v in bijection.state_dict().items()}))
    other.load_state_dict(state)
    expected, got = bijection.encode(x, context), other.encode(x, context)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])


def test_copies_are_independent(case):
    bijection, x, context = case.build(), case.input(2), case.condition(2)
    expected, _ = bijection.encode(x, context)
    copied = copy.deepcopy(bijection)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.zero_()
    assert torch.equal(copied.encode(x, context)[0], expected)


def test_samples_do_not_see_each_other(case):
    bijection, x, context = case.build(), case.input(5), case.condition(5)
    together = bijection.encode(x, context)
    for i in range(5):
        alone = bijection.encode(x[i : i + 1], None if context is None else context[i : i + 1])
        torch.testing.assert_close(alone[0][0], together[0][i], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(alone[1][0], together[1][i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("train", [False, True])
def test_empty_batch(case, train):
    bijection = case.build().train(train)
    for module in bijection.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # there are no statistics of an empty batch
    z, log_det = bijection.encode(case.input(0), case.condition(0))
    x, _ = bijection.decode(z, case.condition(0))
    assert x.shape == (0, *case.shape)
    assert log_det.shape == (0,)


def test_wrong_shapes_are_refused(shaped_case):
    case, bijection = shaped_case, shaped_case.build()
    with pytest.raises(ValueError, match=r"expected a shape \[B, .*\]; got \[2, 97\]"):
        bijection.encode(torch.zeros(2, 97, dtype=torch.float64), case.condition(2))
    with pytest.raises(ValueError, match=r"expected|divisible"):
        bijection.decode(torch.zeros(2, 97, dtype=torch.float64), case.condition(2))
    with pytest.raises(ValueError, match=r"expected a shape .*; got \[\]"):
        bijection.encode(torch.tensor(1.0, dtype=torch.float64))


def test_integers_are_refused(case):
    with pytest.raises(
        TypeError, match=r"expected a floating-point tensor; got torch.uint8.*divide 8-bit values by 255"
    ):
        case.build().encode(case.input(2).to(torch.uint8), case.condition(2))


def test_wrong_precision_is_refused(weighted_case):
    case = weighted_case
    with pytest.raises((TypeError, RuntimeError), match=r"expected torch.float64|dtype|same"):
        case.build().encode(case.input(2, torch.float32), case.condition(2, torch.float32))


def test_missing_context_is_refused(conditional_case):
    case, bijection = conditional_case, conditional_case.build()
    with pytest.raises(ValueError, match=rf"expected a context of shape \[B, {case.context}\].*got none"):
        bijection.encode(case.input(2))
    with pytest.raises(ValueError, match=rf"expected a context of shape \[2, {case.context}, ...\]; got \[2, 7\]"):
        bijection.encode(case.input(2), torch.zeros(2, 7, dtype=torch.float64))


def test_repr_shows_masks_and_shapes(case):
    assert case.shown in repr(case.make())


def test_trace_tells_the_same_story(case):
    bijection, x, context = case.build(), case.input(3), case.condition(3)
    flow = Flow(bijection)
    _, log_det = bijection.encode(x, context)
    steps = bijection.trace(x, context)
    torch.testing.assert_close(sum((s.log_det for s in steps), torch.zeros(3, dtype=x.dtype)), log_det)
    for step in steps:
        assert step.log_det_map.shape == (3, *step.input.shape[2:])
        torch.testing.assert_close(step.log_det_map.reshape(3, -1).sum(1), step.log_det)
        decoded, _ = step.layer.decode(step.output, context)
        torch.testing.assert_close(decoded, step.input, rtol=1e-7, atol=1e-7)
        for what in ("input", "output", "s", "t"):
            if getattr(step, what) is not None:
                assert step.in_image(what).shape == x.shape
    if steps:
        latents, _ = flow.encode(x, context)
        torch.testing.assert_close(steps[-1].in_image("output"), flow.latents_as_image(latents))
    assert len({s.name for s in steps}) == len(steps)


def test_layouts_are_permutations(case):
    bijection, x = case.build(), case.input(2)
    latents, _ = bijection.encode_levels(x, case.condition(2))
    image = bijection.levels_to_image(latents)
    assert image.shape == x.shape
    for z, again in zip(latents, bijection.image_to_levels(image), strict=True):
        assert torch.equal(z, again)
    labels = torch.arange(x[:1].numel()).reshape(x[:1].shape).double()
    moved = torch.cat([z.flatten() for z in bijection.image_to_levels(labels)])
    assert torch.equal(moved.sort().values, labels.flatten())


def test_levels_add_up(case):
    bijection, x, context = case.build(), case.input(3), case.condition(3)
    latents, log_dets = bijection.encode_levels(x, context)
    back, log_det = bijection.decode_levels(latents, context)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det, sum(log_dets))
    with pytest.raises(ValueError, match=rf"expected {len(latents)} latents, one per level; got {len(latents) + 1}"):
        bijection.decode_levels((*latents, latents[0]), context)


def test_recompute_finds_the_input_again(reversible_case):
    case = reversible_case
    bijection, x, context = case.build(), case.input(3), case.condition(3)
    z, log_det = bijection.encode(x, context)
    again, z_again, log_det_again = bijection.recompute(z.detach(), context)
    torch.testing.assert_close(again.detach(), x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(z_again, z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(log_det_again, log_det, rtol=1e-8, atol=1e-8)
