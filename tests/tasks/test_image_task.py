"""What all tasks on images share."""

import jax
import pytest

from seaformer_jax import tasks
from tests.training import nano


@pytest.mark.parametrize(("wanted", "found"), [(1, 8), (12, 16), (16, 16)])
@pytest.mark.parametrize("recipe", [nano.get_config, nano.get_segmentation_config])
def test_evaluation_batches_divide_among_the_devices(monkeypatch, recipe, wanted, found):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    config = recipe()
    config.eval.batch_size = wanted
    masks = [batch["mask"] for batch in tasks.create(config).eval_batches()]
    assert {len(mask) for mask in masks} == {found}
    assert sum(mask.sum() for mask in masks) == config.data.val_size  # The padding does not count.
