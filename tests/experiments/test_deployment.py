"""The deployment table: ratios and targets from made-up samples, and the job that runs PyTorch's eager mode."""

import os
import pathlib

import numpy as np
import pytest
import torch
from torch import nn

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from experiments import deployment_report as reporting
from experiments import deployment_sides as sides

SIZE = (24, 40)


def record(side: str, network: float, post: float = 0.0, output: str = "logits8") -> dict:
    # The third samples are outliers, so the medians are `network` and `post`.
    samples = {"network": [network, network, 99.0], "post": [post, post, 0.0]}
    return {"bundle": side, "task": "segmentation", "output": output, "samples": samples}


@pytest.fixture
def report() -> dict:
    return {
        "bundles": [
            record(sides.EAGER, 80.0, 400.0),
            record(sides.PLAIN, 20.0, 5.0),
            record(sides.PLAIN_LABELS, 600.0, output="labels"),
            record(sides.ONNX_LABELS, 80.0, output="labels"),
            record("onnx", 18.0, 12.0),
            record("litert", 25.0, 2.0),
            record("executorch", 30.0, 10.0),
            record("ncnn", 40.0, 10.0),
            record("openvino", 33.0, 10.0),
            record("mnn", 41.0, 10.0),
            *(record(f"{kind} int8", 10.0 + n, 10.0) for n, kind in enumerate(sides.INT8)),
        ]
    }


def test_times_and_ratios(report):
    rows = {row["side"]: row for row in reporting.rows("base", report)}
    assert rows["litert"]["`logits8` ms"] == 25 and rows["litert"]["`labels` ms"] == 27
    assert rows["litert"]["`logits8` x plain ONNX"] == pytest.approx(20 / 25)
    assert rows["litert"]["`labels` x eager"] == pytest.approx(480 / 27)
    assert rows["litert"]["`labels` x plain ONNX"] == pytest.approx(600 / 27)
    assert rows[sides.PLAIN]["`labels` ms"] == "" and rows[sides.PLAIN_LABELS]["`logits8` ms"] == ""


def test_targets_take_the_fastest_side(report):
    found = {row["target"]: row for row in reporting.against_targets({("segmentation", "base"): report})}
    assert len(found) == sum(target.task == "segmentation" for target in reporting.TARGETS)
    eager = found["base `logits8`, against eager"]
    assert (eager["by"], eager["met"]) == ("onnx", "yes") and eager["ratio"] == pytest.approx(80 / 18)
    kernel = found["base `labels` with the kernel, against eager"]
    assert kernel["by"] == "litert" and kernel["ratio"] == pytest.approx(480 / 27)
    pure = found["base `labels` in pure ONNX, against eager"]
    assert pure["met"] == "**no**" and pure["ratio"] == 6
    assert {name for target in reporting.TARGETS for name in target.sides} >= set(NATIVE)


def test_the_labels_path_is_resize_and_argmax():
    logits = torch.randn(1, 5, 3, 5, generator=torch.Generator().manual_seed(0))
    resized = nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(seeded_bundles.LabelsPath(SIZE)(logits), resized.argmax(1))


def test_eager_runs_as_a_job_and_leaves_the_process_as_it_was(tmp_path):
    image = np.random.default_rng(0).standard_normal((1, *SIZE, 3)).astype(np.float32)
    fields = dict.fromkeys(Bundle.__dataclass_fields__)
    bundle = Bundle(**fields | {"folder": pathlib.Path(tmp_path), "input_size": SIZE})
    model = nn.Conv2d(3, 4, 8, stride=8)
    bundle.write_reference(image, np.zeros(()))
    before = os.sched_getaffinity(0), torch.get_num_threads()
    job = sides.EagerJob(model, bundle, [max(before[0])])
    samples = job.measure(1, 3)
    assert [len(values) for values in samples.values()] == [3] * 4
    np.testing.assert_allclose(
        np.add(samples["network"], samples["post"]),
        samples["together"],
        rtol=0,
        atol=1e-9,
    )
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(job.output(), expected, rtol=1e-5, atol=1e-5)
