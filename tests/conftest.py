"""What the tests share."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sepml.system.process import prepare_libraries

# As for a command, and as early: beside other work, threads that wait by spinning make tests ten times slower.
prepare_libraries()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Published lists and tables that are not part of the project; a test that compares with them skips without."""
    folder = Path(os.environ.get("SEPML_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the reference data folder {folder} is absent (set SEPML_SHARED to use it)")
    return folder


@pytest.fixture(autouse=True)
def untouched_logger() -> Iterator[None]:
    """The logger as it is before the command line, which other tests call in this process, has set it up."""
    logger = logging.getLogger("sepml")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)
    yield


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """PyTorch's threads as a test sets them, and as they were after it."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
