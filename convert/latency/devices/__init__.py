"""The devices of `--device`: this machine, its browser, an emulated ARM core, phones over adb and boards over ssh."""
