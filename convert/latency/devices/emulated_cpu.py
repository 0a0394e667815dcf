"""Writes the /proc/cpuinfo and /sys files of the emulated processor."""

import pathlib

CORES = 4
# Part numbers of the implementer ARM, from MIDR_EL1 in Arm's technical reference manuals. The features are those that
# qemu 7.2 emulates, under their names in the Linux kernel.
_PARTS = {"cortex-a76": "0xd0b"}
_FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
_CORE = """processor\t: {core}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: {part}
CPU revision\t: 0

"""
_MAX_KHZ = 2400000


def describe(root: pathlib.Path, name: str) -> None:
    """Writes the files that describe a processor.

    The libraries of the runtimes read them to count the cores and to choose kernels.

    Args:
        root: Folder that the emulated program sees as the root of the file system.
        name: Name of the processor in qemu, such as "cortex-a76".
    """
    cores = [_CORE.format(core=i, features=_FEATURES, part=_PARTS[name]) for i in range(CORES)]
    system = "sys/devices/system/cpu"
    files = {"proc/cpuinfo": "".join(cores)}
    files |= {f"{system}/{kind}": f"0-{CORES - 1}\n" for kind in ("possible", "present", "online")}
    for i in range(CORES):
        files |= {
            f"{system}/cpu{i}/cpufreq/cpuinfo_max_freq": f"{_MAX_KHZ}\n",
            f"{system}/cpu{i}/cpufreq/scaling_governor": "performance\n",
            f"{system}/cpu{i}/topology/core_siblings_list": f"0-{CORES - 1}\n",
            f"{system}/cpu{i}/topology/physical_package_id": "0\n",
        }
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
