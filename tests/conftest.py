"""One thread a process, and nothing random that is not asked for by name."""

import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
