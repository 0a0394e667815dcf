"""Measures the host time of a training step, which Python and JAX need to pass state and batch to the device.

    python -m experiments.step_overhead

The measured program takes and returns the training state of each model (parameters, statistics, moving averages,
optimiser) but only counts the step. So the time of a call is overhead that a real step has, too. Prints a table and
writes experiments/results/step_overhead_<backend>.json.
"""

import time

import jax
import numpy as np

from experiments import measure
from seaformer_jax import config as configs
from seaformer_jax import mesh as meshes
from seaformer_jax.models.registry import create_model, list_models
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim
from seaformer_jax.training import state as states

CALLS = 200


def overhead(name: str) -> dict:
    """Returns one row: the number of arrays in the state, and the median milliseconds of a call."""
    mesh, config = meshes.create_mesh(), configs.default()
    model = create_model(name)
    optimizer, _ = optim.create(config.optim, config.total_steps, split_model(model)[0])
    state = jax.device_put(states.create(model, optimizer, use_ema=True), meshes.replicated(mesh))
    batch = {"label": np.zeros(jax.device_count(), np.int32)}
    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)

    def count(state, batch):
        return state._replace(step=state.step + 1), {"loss": batch["label"].sum()}

    # The shardings and the donated state are those of the real training step.
    step = jax.jit(count, in_shardings=(whole, rows), out_shardings=whole, donate_argnums=0)
    compiled = step.lower(state, meshes.put_batch(mesh, batch)).compile()
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        state, _ = compiled(state, meshes.put_batch(mesh, batch))
        seconds.append(time.perf_counter() - began)
    leaves = len(jax.tree.leaves(state))
    return {"model": name, "state_leaves": leaves, "host_ms": 1e3 * float(np.median(seconds))}


def main() -> None:
    rows = [overhead(name) for name in list_models()]
    measure.print_table(rows)
    measure.write(f"step_overhead_{jax.default_backend()}", {"rows": rows})


if __name__ == "__main__":
    main()
