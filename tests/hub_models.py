"""What tests with a hub on this machine share: the files of a model folder, and a refusal to load a model."""

from pathlib import Path

import pytest

from sepml.errors import SepmlError
from sepml.speech.separation.separator import Separator


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def refused(*words: object, **options: object) -> str:
    with pytest.raises(SepmlError) as caught:
        Separator.from_pretrained(*words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
