"""What the tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Published lists and tables that are not part of the project; a test that compares with them skips without."""
    folder = Path(os.environ.get("SEPML_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the reference data folder {folder} is absent (set SEPML_SHARED to use it)")
    return folder
