"""What tests with a hub on this machine share: small models, the files of a folder, a refusal to load, a card's example."""

import re
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, built, noise

from sepml.errors import SepmlError
from sepml.speech.models.model import save_model
from sepml.speech.separation.separator import Separator


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def refused(*words: object, **options: object) -> str:
    with pytest.raises(SepmlError) as caught:
        Separator.from_pretrained(*words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def experiment(folder: Path) -> Path:
    for peer in (1, 2):
        save_model(folder / f"peer{peer}", built(TINY["stft"], peer))
    (folder / "best.json").write_text('{"peer": 2}')
    return folder


def mixture() -> torch.Tensor:
    return 0.1 * noise(3000)


def example(card: str) -> str:
    """What the example in a card is to load."""
    return re.search(r"from_pretrained\((.*)\)\n", card)[1]
