"""The training command as a task of a Slurm job of two tasks on this machine (test_processes.py).

python -m tests.training.slurm_task TASK JOB [flags of seaformer_jax.train]
"""

import os
import sys

from seaformer_jax import command, train

if __name__ == "__main__":
    task, job = sys.argv.pop(1), sys.argv.pop(1)
    # What `srun` sets, as far as JAX reads it.
    os.environ |= {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": task,
        "SLURM_LOCALID": task,
    }
    command.run(train.main)
