"""The devices of `--device`: this machine, an emulated ARM core, phones over adb and boards over ssh."""
