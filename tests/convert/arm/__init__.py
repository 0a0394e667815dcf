"""Tests of `convert.arm` and of the ARM toolchain."""
