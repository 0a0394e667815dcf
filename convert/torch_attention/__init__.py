"""The attention modules that SeaFormer is compared with, in plain PyTorch and with their authors' parameter names."""
