"""The part `install`: which packages, driver and devices the campaign finds.

It can be imported where packages of setup.cfg are missing, so that it can name them.
"""

import configparser
import pathlib
import subprocess

from packaging.requirements import Requirement

from experiments import measure
from experiments.gpu_campaign.part import Part, Row
from experiments.gpu_campaign.settings import Settings
from seaformer_jax import versions

_SETUP = pathlib.Path(__file__).parents[2] / "setup.cfg"
_OF_GPUS = ("jaxlib", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "triton")


def units(settings: Settings) -> dict:
    return {"machine": machine}


def machine() -> Row:
    """Returns what the results depend on: device, driver, processor and versions.

    Raises:
        RuntimeError: Packages are missing or too old; the message has the command that installs them.
    """
    found = packages()
    import jax
    import torch

    first = jax.devices()[0]
    memory = (first.memory_stats() or {}).get("bytes_limit", 0)
    return {
        "device": first.device_kind,
        "platform": first.platform,
        "devices": jax.device_count(),
        "memory for JAX, GB": round(memory / 1e9),
        "driver": _driver(),
        "device of torch": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        **measure.machine(),
        **found,
    }


def packages() -> dict[str, str]:
    """Returns the versions of the packages that the campaign needs, and of those that only GPUs need."""
    setup = configparser.ConfigParser()
    setup.read(_SETUP)
    options = setup["options"]["install_requires"], setup["options.extras_require"]["convert"]
    needed = [Requirement(line) for text in options for line in text.split()]
    lacking = [str(needs) for needs in needed if not _is_there(needs)]
    if lacking:
        raise RuntimeError(f"missing or too old; python -m pip install {' '.join(lacking)}")
    names = [*(needs.name for needs in needed), *_OF_GPUS]
    return {name: version for name in names if (version := versions.installed(name))}


def _is_there(needs: Requirement) -> bool:
    version = versions.installed(needs.name)
    return version is not None and needs.specifier.contains(version, prereleases=True)


def _driver() -> str:
    """Returns the version of NVIDIA's driver, or "none"."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"


def summary(rows) -> list[Row]:
    """Returns one row for every fact: as columns they would not fit on a page."""
    return [{"what": key, "found": value} for row in rows for key, value in row.items()]


PART = Part("Packages, driver and devices.", units, summary)
