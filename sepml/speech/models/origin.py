"""Where models come from: the pair that comes with sepml, and what a loaded model remembers of its files."""

from dataclasses import dataclass
from pathlib import Path

from sepml.errors import SepmlError
from sepml.system.readers import read_object

DEFAULT = Path(__file__).resolve().parents[2] / "pretrained" / "prompts-2mix"
"""The pair that comes with sepml: used when no model is named."""
ENSEMBLE_FORMAT = "sepml-ensemble-1"


@dataclass(frozen=True)
class Origin:
    """Where the models of a separator come from.

    Attributes:
        name: as it was asked for.
        path: the folder or the file on this machine.
        parts: a model folder or a checkpoint for each of the models.
        commit: of a model from the Hugging Face Hub.
    """

    name: str
    path: Path
    parts: tuple[Path, ...]
    commit: str | None = None


def model_format(config: Path) -> str | None:
    """The format that a config.json names; None when it is not a file of sepml."""
    try:
        name = read_object(config).get("format")
    except (FileNotFoundError, SepmlError):
        return None
    return name if isinstance(name, str) else None
