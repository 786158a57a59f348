import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dracones.training.order import Order


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(4, 60), share=st.integers(1, 9), processes=st.integers(1, 4), drop_last=st.booleans(),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_an_epoch_sees_each_item_at_most_once_and_the_processes_share_one_batch(
    count, share, processes, drop_last, seed
):
    batch_size = share * processes
    alone = Order(count, batch_size, seed, drop_last=drop_last)
    several = [
        Order(count, batch_size, seed, drop_last=drop_last, rank=rank, processes=processes) for rank in range(processes)
    ]
    steps = several[0].steps_per_epoch
    for epoch in range(2):
        seen = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            parts = [order.indices(step) for order in several]
            assert len({len(part) for part in parts}) == 1
            assert len(parts[0]) > 0
            together = torch.stack(parts, dim=1).flatten()
            assert len(together) == several[0].images(step)
            if (alone.batch_size, alone.steps_per_epoch) == (several[0].batch_size, steps):
                assert torch.equal(together, alone.indices(step)[: len(together)])
            seen += together.tolist()
        assert len(set(seen)) == len(seen)
        assert len(seen) > count - batch_size - processes


def test_without_dropping_every_item_is_seen_and_each_epoch_is_another_order():
    order = Order(10, 4, seed=3, drop_last=False)
    epochs = [torch.cat([order.indices(3 * epoch + step) for step in range(3)]) for epoch in range(2)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(10))] * 2
    assert not torch.equal(*epochs)
    assert [order.images(step) for step in range(4)] == [4, 4, 2, 4]


def test_any_step_can_be_asked_for_first():
    one, other = Order(50, 8, seed=1), Order(50, 8, seed=1)
    in_turn = [one.indices(step) for step in range(20)]
    assert all(torch.equal(other.indices(step), in_turn[step]) for step in (17, 3, 11))


def test_a_dataset_smaller_than_a_batch_is_one_batch():
    order = Order(5, 32, seed=0)
    assert order.steps_per_epoch == 1
    assert sorted(order.indices(0).tolist()) == list(range(5))


@pytest.mark.parametrize(
    ("count", "batch_size", "processes", "message"),
    [
        (0, 4, 1, "dataset is empty"),
        (9, 5, 2, "multiple of that; got 5"),
        (2, 4, 4, "at least 4 items; the dataset has 2"),
    ],
)
def test_what_cannot_be_shared_is_refused(count, batch_size, processes, message):
    with pytest.raises(ValueError, match=message):
        Order(count, batch_size, 0, processes=processes)
