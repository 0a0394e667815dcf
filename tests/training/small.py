"""A stand-in task that compiles in a second, and the command line on the `nano` recipe."""

import itertools
import json
import pathlib
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from experiments.forked import free_port
from seaformer_jax import config as configs
from seaformer_jax import losses
from seaformer_jax.metrics import Mean
from seaformer_jax.models.blocks import ConvBN, Pointwise
from tests import forked
from tests.paths import REPOSITORY

CLASSES, SIDE = 4, 4


class Net(nnx.Module):
    """Convolution and BatchNorm, a residual branch with drop path, a linear head."""

    def __init__(self, norm: bool = True, bn_groups: int = 1):
        rng = np.random.default_rng(0)
        self.stem = ConvBN(Pointwise(3, 8, rng), 8, groups=bn_groups) if norm else Pointwise(3, 8, rng)
        self.branch = Pointwise(8, 8, rng)
        self.head = Pointwise(8, CLASSES, rng, use_bias=True)
        self.drop_path = nnx.Dropout(0.5, broadcast_dims=(1, 2, 3))
        self.norm = norm

    def __call__(self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """x [B, H, W, 3] -> logits [B, CLASSES]."""
        x = jax.nn.relu(self.stem(x, train) if self.norm else self.stem(x))
        x = x + self.drop_path(self.branch(x), deterministic=rngs is None, rngs=rngs)
        return self.head(x.mean((1, 2)))


def batch(number: int, size: int = 8) -> dict[str, np.ndarray]:
    """Images whose mean brightness tells their class."""
    rng = np.random.default_rng([7, number])
    label = rng.integers(CLASSES, size=size).astype(np.int32)
    image = rng.standard_normal((size, SIDE, SIDE, 3)) + label[:, None, None, None]
    return {"image": image.astype(np.float32), "label": label}


def loss(model: nnx.Module, batch: dict, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits = model(batch["image"], train=True, rngs=nnx.Rngs(dropout=key))
    accuracy = (logits.argmax(-1) == batch["label"]).mean()
    return losses.cross_entropy(logits, batch["label"]).mean(), {"accuracy": accuracy}


class StandIn:
    """A `tasks.base.Task` on in-memory images; `before_batch` may be given to meddle with training batches."""

    best_metric = "accuracy"
    class_names = tuple("abcd")

    def __init__(self, config: ConfigDict, before_batch=lambda number, batch: batch):
        self.config, self.before_batch = config, before_batch

    def create_model(self) -> nnx.Module:
        return Net(bn_groups=self.config.model.bn_groups)

    def example_batches(self, batch_size: int) -> list[dict]:
        return [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(0, batch_size))]

    def heights(self) -> list[int]:
        return [SIDE]

    def train_batches(self, start_step: int) -> Iterator[dict]:
        for number in itertools.count(start_step):
            rows = self.before_batch(number, batch(number, self.config.batch_size))
            yield {"skipped": np.zeros(len(rows["label"]), np.int64), **rows}

    def constants(self) -> dict:
        return {}

    def eval_batches(self) -> Iterator[dict]:
        size = self.config.eval.batch_size
        for number in range(3):
            rows = batch(1000 + number, size)
            yield {**rows, "mask": np.ones(size, bool), "skipped": np.zeros(size, np.int64)}

    loss = staticmethod(loss)

    def eval_metrics(self, model: nnx.Module, batch: dict) -> dict:
        logits, mask = model(batch["image"]), batch["mask"]
        return {
            "loss": Mean.of(losses.cross_entropy(logits, batch["label"]), mask),
            "accuracy": Mean.of(logits.argmax(-1) == batch["label"], mask),
        }

    def summarize(self, counts: dict) -> dict[str, float]:
        return {name: value.compute() for name, value in counts.items()}


def config(**changes) -> ConfigDict:
    """The record for `StandIn`; `changes` are dotted keys with __ for the dot."""
    record = configs.default()
    record.update_from_flattened_dict(
        {
            "total_steps": 12,
            "batch_size": 8,
            "log_every": 5,
            "optim.name": "sgd",
            "optim.lr": 0.05,
            "optim.ema_decay": 0.8,
            "optim.schedule.warmup_steps": 2,
            "eval.every": 4,
            "eval.batch_size": 8,
            "checkpoint.every": 4,
        }
    )
    record.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return record


def equal(a, b) -> bool:
    """Whether two trees have the same structure and bitwise equal arrays."""
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return all(jax.tree.leaves(same))


def distance(a, b) -> float:
    """Largest absolute difference between two trees of one structure."""
    differences = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(initial=0), a, b)
    return float(max(jax.tree.leaves(differences)))


def start(
    workdir: pathlib.Path,
    cache: str,
    devices: int = 1,
    command: str = "seaformer_jax.train",
    **changes,
) -> forked.Command:
    """Starts `python -m seaformer_jax.train` on the nano recipe; `changes` as for `config`."""
    changes |= {"compilation_cache": cache}
    options = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    recipe = REPOSITORY / "tests/training/nano.py"
    arguments = ["--config", recipe, "--workdir", workdir, *options]
    return forked.Command(command, arguments, devices, merged=True)


def start_two(
    workdir: pathlib.Path, cache: str, own: dict[int, dict] | None = None, **changes
) -> list[forked.Command]:
    """Starts two processes of one device each, in one workdir; `own` has the changes of only one of them."""
    changes |= {"distributed__enabled": True, "distributed__coordinator": f"localhost:{free_port()}"}
    changes |= {"distributed__num_processes": 2}
    own = own or {}
    return [
        start(workdir, cache, **changes, distributed__process_id=index, **own.get(index, {}))
        for index in range(2)
    ]


def finish(command: forked.Command, status: int = 0) -> str:
    """Waits for a command and returns its output; fails if it ends with another exit status."""
    output, _ = command.communicate(timeout=600)
    assert command.returncode == status, output
    return output


def wait_for_step(process: forked.Command, workdir: pathlib.Path, step: int) -> None:
    """Returns when a run has come to `step`, or has ended."""
    while process.poll() is None and not any(row["step"] >= step for row in rows(workdir)):
        time.sleep(0.01)


def rows(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl, but for a row that is being written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def curve(workdir: pathlib.Path, name: str) -> dict[int, float]:
    """Step -> value of one scalar of metrics.jsonl."""
    return {row["step"]: row[name] for row in rows(workdir) if name in row}


def steps_traced(folder: pathlib.Path) -> list[int]:
    """Numbers of the steps in the only trace of a folder."""
    (file,) = folder.glob("plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    return sorted(int(dict(event.stats)["step_num"]) for event in events if event.name == "train")


def zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)
