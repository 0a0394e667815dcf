"""A hostile campaign against the commands: kills, failing disks, lost processes, wrong inputs; see `__main__.py`."""
