"""Compiles what recipes run on GPUs, on a machine without one, and counts the bytes that a chip moves.

    make aot
    python -m experiments.gpu_program [--only TEXT] [--again] [--read] [--list]

As `experiments/tpu_program.py`, for H100s; a training step takes a minute. The kernels are not tuned, because that
needs the GPU. Writes experiments/results/gpu_program.json and .md.
"""

from experiments.programs import command

if __name__ == "__main__":
    command.main("cuda", "gpu_program", "Programs for GPUs")
