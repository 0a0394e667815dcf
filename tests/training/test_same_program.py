"""A resumed run finds its step in the compilation cache: it is the program of the run before."""

import jax
from flax import nnx

from seaformer_jax import mesh as meshes
from seaformer_jax import tasks
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import checkpoint, optim
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step
from tests.training import nano


def test_the_step_of_a_restored_state_is_that_of_a_fresh_one(tmp_path):
    config = nano.get_config()
    task, mesh = tasks.create(config), meshes.create_mesh()
    model = task.create_model()
    optimizer, _ = optim.create(config.optim, config.total_steps, split_model(model)[0])
    fresh = jax.device_put(states.create(model, optimizer, use_ema=True), meshes.replicated(mesh))
    checkpoints = checkpoint.Checkpoints(tmp_path, config.checkpoint, task.best_metric)
    checkpoints.save(fresh, 0, {}, None)
    checkpoints.wait()
    restored, _ = checkpoints.restore(fresh)
    checkpoints.close()

    step = make_train_step(nnx.graphdef(model), task.loss, optimizer, seed=0, ema_decay=0.9)
    batch = task.example_batches(config.batch_size)[0]
    programs = [jax.jit(step).lower(state, batch).as_text() for state in (fresh, restored)]
    assert programs[0] == programs[1]
