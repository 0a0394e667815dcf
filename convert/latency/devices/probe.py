"""Reads a device's facts (processor, cores) and condition (governor, temperatures) through a shell."""

import re
from collections.abc import Callable
from typing import Any

Shell = Callable[[str], str]  # Runs a command of /bin/sh and returns what it prints.

# Prints lines "key value". The value is empty if a file does not exist. Works in Android's shell too.
_FACTS = """
echo abi $(uname -m); echo kernel $(uname -sr)
echo soc $(getprop ro.soc.model 2>/dev/null) $(tr '\\0' ' ' </sys/firmware/devicetree/base/model 2>/dev/null)
echo system $(getprop ro.build.fingerprint 2>/dev/null) $(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")
grep -m1 -E '^(model name|Hardware)' /proc/cpuinfo
echo allowed $(grep Cpus_allowed_list /proc/self/status)
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  echo core ${c##*/cpu} $(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null)
done
"""
# Prints "core NUMBER GOVERNOR LIMIT HIGHEST" (frequencies in kHz) and "zone TEMPERATURE NAME".
_CONDITION = """
for c in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
  [ -d $c ] || continue
  n=${c%/cpufreq}
  echo core ${n##*/cpu} $(cat $c/scaling_governor $c/scaling_max_freq $c/cpuinfo_max_freq 2>/dev/null)
done
for z in /sys/class/thermal/thermal_zone*; do
  [ -r $z/temp ] && echo zone $(cat $z/temp 2>/dev/null) $(cat $z/type 2>/dev/null)
done
true
"""


def facts(shell: Shell) -> dict[str, Any]:
    """Returns the facts about a device.

    Returns:
        "abi", "kernel", "cpu", "soc" and "system", "" if unknown; and "max_khz": core -> its highest frequency in
        kHz, 0 if unknown. Only the cores that the shell's processes may use are listed.
    """
    lines = shell(_FACTS).splitlines()
    values = dict.fromkeys(("abi", "kernel", "soc", "system"), "")
    values |= {
        key: value.strip() for key, _, value in (line.partition(" ") for line in lines) if key in values
    }
    processor = [line.partition(":")[2].strip() for line in lines if re.match("model name|Hardware", line)]
    cores = [line.split()[1:] for line in lines if line.startswith("core ")]
    allowed = [line.split()[-1] for line in lines if line.startswith("allowed ")]
    usable = _listed(allowed[0]) if allowed else {int(core[0]) for core in cores}
    max_khz = {int(n): int(khz[0]) if khz else 0 for n, *khz in cores if int(n) in usable}
    return {**values, "cpu": processor[0] if processor else "", "max_khz": max_khz}


def condition(shell: Shell, cores: list[int]) -> dict[str, Any]:
    """Returns the current condition of a device. An entry is left out if the device does not report it.

    Returns:
        "governor": the frequency governors of `cores`; "limited": whether one of them is held below its highest
        frequency; "celsius": thermal zone -> temperature.
    """
    lines = [line.split() for line in shell(_CONDITION).splitlines()]
    # A line is complete only if the device reports the governor and both frequencies.
    used = [line[2:] for line in lines if line[:1] == ["core"] and int(line[1]) in cores and len(line) == 5]
    state: dict[str, Any] = {}
    if used:
        state["governor"] = " ".join(sorted({governor for governor, _, _ in used}))
        state["limited"] = any(int(limit) < int(highest) for _, limit, highest in used)
    zones = [
        line for line in lines if line[:1] == ["zone"] and len(line) > 2 and line[1].lstrip("-").isdigit()
    ]
    if zones:
        state["celsius"] = {" ".join(name): _celsius(int(value)) for _, value, *name in zones}
    return state


def _listed(ranges: str) -> set[int]:
    """Returns the numbers of a list such as "0-3,7"."""
    bounds = [part.split("-") for part in ranges.split(",")]
    return {n for bound in bounds for n in range(int(bound[0]), int(bound[-1]) + 1)}


def _celsius(value: int) -> float:
    """Returns degrees: Linux reports thousandths of a degree, but some phones report degrees."""
    return value / 1000 if abs(value) > 1000 else float(value)
