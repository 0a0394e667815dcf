"""Files of weights that are damaged, hostile, of another model, or hold values that no model may have."""

import json
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import torch

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case

PART = "wrong weights"

_CONFIG = f"--config={recipe.RECIPE}"
_READERS = {
    "from_torch": f"convert.from_torch --checkpoint={{here}}/x.pth {_CONFIG} --workdir={{here}}/new",
    "evaluate": f"seaformer_jax.evaluate --weights={{here}}/x.pth {_CONFIG} --out={{here}}/out",
    "init_from": f"seaformer_jax.train {_CONFIG} --config.init_from={{here}}/x.pth --workdir={{here}}/new",
    "export": "convert.export --weights={here}/x.pth --format=onnx --input-size=64x64 --out={here}/bundle",
}
_TEACHER = (
    f"seaformer_jax.train {_CONFIG}:distilled_classification --config.teacher.source={{here}}/x.pth "
    f"--config.teacher.model={recipe.MODEL} --workdir={{here}}/new"
)
_SAFETENSORS = f"convert.from_torch --checkpoint={{here}}/x.safetensors {_CONFIG} --workdir={{here}}/new"
_LOGGED = ("init_from", "an unknown name")  # It takes what fits, and logs the rest.
_KERNEL, _VARIANCE = ".c.weight", ".running_var"

StateDict = dict[str, torch.Tensor]


class _Hostile:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self._path, "this code was run")


def cases() -> list[Case]:
    """Returns every wrong file with every command that reads weights."""
    found = []
    for name, change in (_CHANGED | _OTHER_CONTENT).items():
        for command, line in (_READERS | {"teacher": _TEACHER}).items():
            if (command, name) != _LOGGED:
                found.append(Case(PART, f"{command}, {name}", line, _saved(change)))
    for name, change in _BYTES.items():
        for command, line in _READERS.items():
            found.append(Case(PART, f"{command}, {name}", line, _bytes(change, "pth")))
        found.append(
            Case(PART, f"from_torch, {name}, safetensors", _SAFETENSORS, _bytes(change, "safetensors"))
        )
    found += [Case(PART, f"export, {name}", _READERS["export"], _card(text)) for name, text in _CARDS.items()]
    # The other commands do not read the card.
    found.append(Case(PART, "from_torch, a pickle that runs code", _READERS["from_torch"], _hostile))
    return found


def _saved(change: Callable[[StateDict], Any]) -> Build:
    """Returns the function that writes the changed state dict, with the card beside it."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        state_dict = torch.load(made / "model.pth", weights_only=True)
        torch.save(change(state_dict), here / "x.pth")
        (here / "x.json").write_bytes((made / "model.json").read_bytes())

    return build


def _bytes(change: Callable[[bytes], bytes], suffix: str) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        (here / f"x.{suffix}").write_bytes(change((made / f"model.{suffix}").read_bytes()))

    return build


def _card(text: str) -> Build:
    """Returns the function that writes good weights with a card in which fields are replaced, or with this text."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        (here / "x.pth").write_bytes((made / "model.pth").read_bytes())
        card = json.loads((made / "model.json").read_text())
        replaced = json.dumps(card | json.loads(text)) if text.startswith("{") and len(text) > 2 else text
        (here / "x.json").write_text(replaced)

    return build


def _hostile(here: pathlib.Path, made: pathlib.Path) -> None:
    content = {"state_dict": _Hostile(here / "owned")}
    with (here / "x.pth").open("wb") as file:
        torch.save(content, file, pickle_module=pickle)


def _with(ending: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[StateDict], StateDict]:
    """Returns the function that changes the first tensor whose name ends like this."""

    def changed(state_dict: StateDict) -> StateDict:
        name = next(name for name in state_dict if name.endswith(ending))
        return state_dict | {name: change(state_dict[name])}

    return changed


def _without(state_dict: StateDict, part: str) -> StateDict:
    return {name: value for name, value in state_dict.items() if part not in name}


def _filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.where(torch.arange(tensor.numel()).view(tensor.shape) == 1, value, tensor)


_CHANGED = {
    "a weight that is nan": _with(_KERNEL, _filled(float("nan"))),
    "a weight that is infinite": _with(_KERNEL, _filled(float("inf"))),
    "a variance that is negative": _with(_VARIANCE, _filled(-1.0)),
    "a variance that is infinite": _with(_VARIANCE, _filled(float("inf"))),
    "weights that are integers": _with(_KERNEL, lambda tensor: (100 * tensor).int()),
    "weights that are complex": _with(_KERNEL, lambda tensor: tensor.to(torch.complex64)),
    "a kernel of another shape": _with(_KERNEL, lambda tensor: tensor[:1]),
    "a kernel that is a number": _with(_KERNEL, lambda tensor: torch.tensor(1.0)),
    "a missing kernel": lambda state_dict: _without(
        state_dict, next(n for n in state_dict if n.endswith(_KERNEL))
    ),
    "an unknown name": lambda state_dict: state_dict | {"extra.weight": torch.zeros(3)},
    "names of another project": lambda state_dict: {f"resnet.{n}": v for n, v in state_dict.items()},
}
_OTHER_CONTENT = {
    "a list": lambda state_dict: list(state_dict.values()),
    "a number": lambda state_dict: 3,
    "nothing": lambda state_dict: {},
    "a state dict that is None": lambda state_dict: {"state_dict": None},
    "a state dict of texts": lambda state_dict: {"state_dict": dict.fromkeys(state_dict, "x")},
    "names that are numbers": lambda state_dict: dict(enumerate(state_dict.values())),
}
_BYTES = {
    "an empty file": lambda data: b"",
    "a text": lambda data: b"<html>404: not found</html>",
    "half a file": lambda data: data[: len(data) // 2],
    "a file without its beginning": lambda data: data[100:],
    "a file of zeros": lambda data: bytes(len(data)),
}
# JSON objects are merged into the right card; any other text replaces it.
_CARDS = {
    "an empty card": "",
    "a card that is a list": "[]",
    "a card without a model": "{}",
    "a card of an unknown model": '{"model": "seaformer_tinny"}',
    "a card of another model": '{"model": "seaformer_tiny"}',
    "a card whose model is a number": '{"model": 3}',
    "a card with unknown options": '{"options": {"squeeze": true}}',
    "a card with a wrong option": '{"options": {"detail_input": "conw"}}',
    "a card with a text as mean": '{"mean": "abc"}',
    "a card with two means": '{"mean": [0.5, 0.5]}',
    "a card with a deviation of 0": '{"std": [0, 1, 1]}',
    "a card with a wrong crop": '{"crop_fraction": 2}',
    "a card with a wrong interpolation": '{"interpolation": "nearest"}',
    "a card with fewer classes": '{"class_names": ["a", "b"]}',
    "a card with classes that are numbers": '{"class_names": [1, 2, 3, 4, 5, 6, 7, 8]}',
}
