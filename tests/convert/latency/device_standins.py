"""Stand-ins for devices: `adb`, `ssh`, the programs of a phone, a runner, ONNX Runtime and bundles.

The stand-ins for `adb` and `ssh` run their commands on this machine, in a folder that acts as the device's storage.
The network is the mean of each input channel, so the expected output is known.
"""

import json
import os
import pathlib
import sys

import numpy as np

from convert.bundle import Bundle

SIZE = (6, 8)

_TOOLS = """#!{python} -IS
# The device's storage is $DEVICE_ROOT. Its own programs, in $DEVICE_PROGRAMS, take precedence over this machine's.
import os, pathlib, shutil, subprocess, sys
root = pathlib.Path(os.environ["DEVICE_ROOT"])
with open(root.parent / "calls", "a") as log:
    print(*sys.argv[1:], file=log)

def there(text):
    return text.replace("/data/local/tmp", str(root))

def shell(command):
    path = os.environ["DEVICE_PROGRAMS"] + ":" + os.environ["PATH"]
    sys.exit(subprocess.run(["sh", "-c", there(command)], cwd=root, env=os.environ | {{"PATH": path}}).returncode)

def adb(words):
    if words == ["devices"]:
        print("List of devices attached", (root.parent / "attached").read_text(), sep="\\n")
        return
    verb, *words = words[2:]
    if verb == "shell":
        shell(*words)
    *sources, target = words
    for source in map(there, sources):
        shutil.copy(source, there(target))

def ssh(words):
    refusal = root.parent / "refusal"
    if refusal.exists():
        print(refusal.read_text(), file=sys.stderr)
        sys.exit(255)
    address, command = words[words.index("--") + 1:]
    shell(command)

{tool}(sys.argv[1:])
"""

_RUNNER = """
import json, os, sys, time
import numpy as np
given = dict(word.split("=", 1) for word in sys.argv[1:])
height, width = int(given["height"]), int(given["width"])
image = np.fromfile(given["image"], np.uint8)
assert image.size == 3 * height * width, image.size
values = np.fromfile(given["input"], np.float32)
rows = values.reshape(3, -1).T if given["layout"] == "NCHW" else values.reshape(-1, 3)
rows.mean(0).tofile(given["output"])
with open("cores", "w") as file:
    json.dump(sorted(os.sched_getaffinity(0)), file)
runs = int(given["runs"])
print(json.dumps({"pre": [1000000] * runs, "network": [5000000] * runs, "post": [500000] * runs,
                  "together": [6500000] * runs, "peak_kb": 2048}))
"""

_ONNXRUNTIME = """
import numpy as np

class SessionOptions:
    pass

class InferenceSession:
    def __init__(self, *arguments, **options):
        pass

    def run(self, names, given):
        (images,) = given.values()
        return [images.mean((2, 3))]
"""


class Device:
    """A stand-in phone and board below `folder`.

    Attributes:
        root: Folder that acts as its storage.
        programs: Folder of its own programs.
        attached: File with the lines that `adb devices` lists.
        refusal: File with the error of `ssh`. If it exists, every call of `ssh` fails.
        calls: File with one line for every call of `adb` and `ssh`.
    """

    def __init__(self, folder: pathlib.Path, monkeypatch):
        self.root, self.programs, tools = folder / "storage", folder / "programs", folder / "tools"
        for path in (self.root, self.programs, tools):
            path.mkdir(parents=True)
        self.attached, self.refusal, self.calls = folder / "attached", folder / "refusal", folder / "calls"
        self.attached.write_text("emulator-1\tdevice\n")
        self.program("uname", '[ "$1" = -m ] && echo aarch64 || echo Linux 5.10')
        self.program("getprop", '[ "$1" = ro.soc.model ] && echo SM8250')
        for tool in ("adb", "ssh"):
            script(tools / tool, _TOOLS.format(python=sys.executable, tool=tool))
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setenv("DEVICE_ROOT", str(self.root))
        monkeypatch.setenv("DEVICE_PROGRAMS", str(self.programs))

    def program(self, name: str, lines: str) -> None:
        """Puts a shell script on the device's path."""
        script(self.programs / name, f"#!/bin/sh\n{lines}\n")


def script(path: pathlib.Path, text: str) -> None:
    """Writes an executable script."""
    path.write_text(text)
    path.chmod(0o755)


def write_runner(build: pathlib.Path, kind: str) -> None:
    """Writes a runner with the arguments and output of on_device/runner/main.cpp into build/runners."""
    folder = build / "runners" / kind
    folder.mkdir(parents=True)
    (folder / "runner.py").write_text(_RUNNER)
    card = {"abi": "aarch64", "start": [sys.executable, "runner.py"]}
    (folder / "runner.json").write_text(json.dumps(card))


def write_onnxruntime(folder: pathlib.Path) -> None:
    """Writes a stand-in module `onnxruntime` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "onnxruntime.py").write_text(_ONNXRUNTIME)


def write_bundle(folder: pathlib.Path, kind: str = "executorch", off: float = 0.0, **fields) -> Bundle:
    """Writes a bundle of a classifier with 3 classes, whose logits are the means of the input channels.

    Args:
        folder: Folder to make.
        kind: Format of the bundle.
        off: Error to add to the expected output.
        **fields: Other fields of the bundle.
    """
    folder.mkdir(parents=True)
    about = {
        "task": "classification",
        "name": "means",
        "format": kind,
        "precision": "fp32",
        "output": "logits",
        "tail": "",
        "input_size": SIZE,
        "input_type": "float32",
        "dynamic_batch": False,
        "tensors": {"input": "image", "output": "logits"},
        "preprocessing": {
            "resize": "centre crop",
            "crop_fraction": 0.875,
            "interpolation": "bicubic",
            "channel_order": "RGB",
            "value_range": (0, 1),
        },
        "layout": "NCHW",
        "output_layout": "",
        "normalized_inside": False,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.1),
        "class_names": ("red", "green", "blue"),
        "palette": (),
        "masks": {},
        "licence": "",
        "score": {},
        "decoding": {},
        "source": {},
        "versions": {},
    }
    bundle = Bundle(folder=folder, **about | fields)
    bundle.model.write_bytes(b"model")
    image = np.random.default_rng(0).random((1, *SIZE, 3), np.float32)
    bundle.write_reference(image, image.mean((1, 2)) + np.float32(off))
    bundle.write_card()
    return bundle
