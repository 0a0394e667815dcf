"""A part of the GPU campaign whose units end in every way that a unit can."""

import os
import subprocess
import sys
import time

from experiments.gpu_campaign.part import Part

# A training: it says that it was asked to stop, and leaves.
_TRAINING = """
import pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).write_text("training")
time.sleep(100)
"""


def units(settings) -> dict:
    def training():
        sys.exit(subprocess.call([sys.executable, "-c", _TRAINING, str(settings.out / "checkpoint")]))

    def stubborn():
        time.sleep(20)
        (settings.out / "finished").touch()

    return {
        "measured": lambda: {"process": os.getpid(), "leader": os.getsid(0)},
        "wrong": lambda: 1 / 0,
        "killed": lambda: os.kill(os.getpid(), 9),
        "refused": lambda: sys.exit(subprocess.call([sys.executable, "-c", "exit('error: no data')"])),
        "training": training,
        "stubborn": stubborn,
    }


PART = Part("A part of the tests.", units)
