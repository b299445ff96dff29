"""What the tests of separation share: a small model, and a working folder."""

from pathlib import Path

import pytest
from separating import TINY


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model, save_model

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, build_model(DPRNNConfig(**TINY, chunk=8, chunk_stride=8)))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder, with a folder `in`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path
