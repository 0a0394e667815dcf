"""Copies of a detector's head compute what the one head does, and share nothing."""

import torch

from convert import torch_detection
from convert.graph import head_copies


def test_copies_compute_the_same_and_share_no_weight():
    torch.manual_seed(0)
    model = torch_detection.create_model("seaformer_tiny", 3, neck_width=8, tower_convs=1).eval()
    copied, image = head_copies.with_copies(model), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(copied(image), model(image), rtol=0, atol=0)
    assert isinstance(model.bbox_head, torch_detection.RetinaHead)  # The argument stays as it is.
    weights = {copy.retina_cls.weight.data_ptr() for copy in copied.bbox_head.copies}
    assert (
        len(weights) == torch_detection.LEVELS == 5
        and model.bbox_head.retina_cls.weight.data_ptr() not in weights
    )
