"""One thread a process, and nothing random that is not asked for by name."""

import os

import pytest
import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True, scope="session")
def _own_identity(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pictures are signed by an identity of the tests, not by the user's."""
    os.environ["MEZZOTINT_HOME"] = str(tmp_path_factory.mktemp("home") / "mezzotint")
