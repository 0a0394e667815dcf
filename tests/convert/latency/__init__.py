"""Tests of `convert.latency`, with stand-ins for devices and runtimes."""
