"""Runs of the real command on packed records, with crops and RandAugment on the device."""

import signal

import numpy as np
import pytest
from etils import epath
from PIL import Image

from seaformer_jax.data import images
from seaformer_jax.data.classification import prepare, sources
from seaformer_jax.training import checkpoint
from tests.training import small

STEPS = 12
pytestmark = (
    pytest.mark.slow
)  # The pipeline's own tests, and those of the augmentation, are its quicker sisters.


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """What `small.start` changes of the recipe: the data are pixels of 50 photos, of which a fifth is upright."""
    photos, root = (epath.Path(tmp_path_factory.mktemp(name)) for name in ("photos", "records"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 50), ("val", 10)):
        for i in range(count):
            path = photos / split / "abc"[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8))
            coarse.resize((50, 66) if i % 5 == 0 else (66, 50), Image.Resampling.BICUBIC).save(path)
        (root / split).mkdir()
        source = sources.ImageFolder(photos, split, images.decode_pillow)
        prepare.prepare(source, root / split, prepare.Settings("uint8", 40, 90, 16, False))
    return {
        "data__source": "records",
        "data__root": root,
        "augment__on_device": True,
        "total_steps": STEPS,
        "checkpoint__every": 4,
        "eval__every": 0,
    }


@pytest.fixture(scope="module")
def reference(changes, tmp_path_factory, compile_cache):
    """Workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    small.finish(small.start(workdir, compile_cache, **changes))
    return workdir


def test_a_killed_run_goes_on_bit_for_bit(changes, reference, tmp_path, compile_cache):
    process = small.start(tmp_path, compile_cache, **changes)
    small.wait_for_step(process, tmp_path, 9)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    assert STEPS not in checkpoint.saved_steps(tmp_path)
    small.finish(small.start(tmp_path, compile_cache, data__workers=1, **changes))
    assert small.curve(tmp_path, "train/loss") == small.curve(reference, "train/loss")
    assert small.equal(checkpoint.load_weights(tmp_path), checkpoint.load_weights(reference))


def test_two_processes_train_as_one(changes, reference, tmp_path, compile_cache):
    for process in small.start_two(tmp_path, compile_cache, **changes):
        small.finish(process)
    found, expected = (small.curve(folder, "train/loss") for folder in (tmp_path, reference))
    assert found.keys() == expected.keys() and len(found) == STEPS
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
