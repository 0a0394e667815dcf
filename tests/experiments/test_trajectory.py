"""The sides, the distances and the text of the comparison of training with PyTorch."""

import numpy as np
import optax
import pytest
import torch
from torch import nn

from experiments import trajectory, trajectory_report
from experiments.trajectory_sides import OurSide, TheirSide, nudged, watch_relus
from seaformer_jax.models import attention


def test_nudged_weights_differ_in_their_last_bit():
    start = {"w": np.linspace(-2, 2, 1000, dtype=np.float32), "n": np.array(3)}
    found = nudged(start)
    relative = np.abs(found["w"] / start["w"].astype(np.float64) - 1)
    assert 0.5 < (relative > 0).mean() < 0.8 and relative.max() < 2.0**-22
    assert found["w"].dtype == np.float32 and found["n"] == 3


def test_distances_are_shares_of_the_way_from_the_start():
    names = ("w", "bn.running_mean", "bn.num_batches_tracked")
    start, theirs, ours, control = (dict.fromkeys(names, np.array([value])) for value in (0, 4, 5, 6))
    assert trajectory.distances(ours, theirs, control, start) == {
        "parameters, ours": 0.25,
        "parameters, control": 0.5,
        "statistics, ours": 0.25,
        "statistics, control": 0.5,
    }


class Recording(nn.Module):
    """The sum of an image times a weight; keeps the last input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        self.images = images
        return self.weight * images.sum()


@pytest.fixture
def theirs():
    model = Recording()
    groups = [{"params": [model.weight], "factor": 10.0}]
    return TheirSide(model, torch.optim.SGD(groups, lr=1.0), lambda output, _: output)


def test_pytorch_learns_with_the_given_rate_times_the_factor_of_the_group(theirs):
    batch = {"image": np.full((1, 4, 2, 3), 0.5, np.float32), "label": np.zeros((1, 4, 2), np.uint8)}
    assert theirs.step(batch, rate=0.01) == 24
    assert theirs.weights()["weight"] == pytest.approx(2 - 0.01 * 10 * 12)
    assert theirs.model.images.shape == (1, 3, 4, 2) and theirs.model.images.is_contiguous()


def test_gradients_of_pytorch_in_another_precision_and_layout(theirs):
    theirs.model.double()
    theirs.layout = torch.channels_last
    image = np.random.default_rng(0).standard_normal((2, 4, 2, 3)).astype(np.float32)
    assert theirs.gradients({"image": image})["weight"] == pytest.approx(image.astype(np.float64).sum())
    assert theirs.model.images.dtype == torch.float64
    assert theirs.model.images.is_contiguous(memory_format=torch.channels_last)


def test_our_gradients_are_what_a_step_of_plain_descent_subtracts():
    def loss(model, batch, key):
        return (model(batch["image"], train=True) ** 2).sum(), {}

    side = OurSide(attention.create("sea", 8, 2), loss, optax.sgd(1.0))
    batch = {"image": np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)}
    before, gradients = side.weights(), side.gradients(batch)
    side.step(batch, rate=0.0)
    after = side.weights()
    names = [name for name in before if "running" not in name and "num_batches" not in name]
    largest = max(np.abs(gradients[name]).max() for name in names)
    assert largest > 0.1
    for name in names:  # Gradients that nearly cancel are rounded as much as large ones.
        np.testing.assert_allclose(
            before[name] - after[name], gradients[name], rtol=1e-4, atol=3e-6 * largest
        )


def test_relus_are_watched_on_both_sides_of_their_range():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.ReLU6())
    masks = watch_relus(model)
    model(torch.tensor([-1.0, 1.0, 7.0]))
    assert [mask.tolist() for mask in masks] == [[False, True, True], [False, True, False]]


def test_the_text_says_where_the_runs_part():
    rows = [
        {"step": step, "parameters, ours": ours, "parameters, control": control}
        for step, ours, control in ((1, 0.001, 40.0), (2, 0.002, 0.001), (5, 0.009, 0.01), (10, 0.6, 0.8))
    ]
    text = trajectory_report.parting(rows)
    assert "within 1% of the way up to step 5" in text and "off from step 10 on" in text
    assert "0.75 to 2.00 times" in text
