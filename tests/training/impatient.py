"""The training command, which waits only five seconds for other processes (test_processes.py)."""

from seaformer_jax import command, processes, train

if __name__ == "__main__":
    processes._CONNECT_SECONDS = 5
    command.run(train.main)
