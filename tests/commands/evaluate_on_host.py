"""The command `evaluate` on the host whose index is the first argument (test_several_hosts.py)."""

import sys

import jax

from seaformer_jax import command, evaluate

if __name__ == "__main__":
    index = int(sys.argv.pop(1))
    jax.process_index = lambda: index
    command.run(evaluate.main)
