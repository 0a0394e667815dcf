"""Latency of bundles on devices: the command, its turns and tables; below it the devices and what runs on them."""
