"""What holds for all tests."""

import torch

# The models here are small: with a thread per core PyTorch spends its time waking them.
torch.set_num_threads(1)
