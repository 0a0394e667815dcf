"""Compiles what recipes run on TPUs, on a machine without one, and counts the bytes that a chip moves.

    make aot
    python -m experiments.tpu_program [--only TEXT] [--again] [--read] [--list]

The programs are listed in `experiments/programs/catalogue.py`: training steps and evaluations of all sizes, and small
parts. A training step takes 3 to 17 minutes, so figures are saved after each program, and a program that has figures
is skipped. `docs/accelerators.md` explains the figures. Writes experiments/results/tpu_program.json and .md.
"""

from experiments.programs import command

if __name__ == "__main__":
    command.main("tpu", "tpu_program", "Programs for TPUs")
