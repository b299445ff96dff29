"""Single-channel speech separation by selective mutual learning.

`Separator`, `Separators` and `score` are loaded when they are first used: `import sepml` by itself stays light.
"""

from typing import TYPE_CHECKING, Any

from sepml.version import __version__

if TYPE_CHECKING:
    from sepml.speech.scoring.utterance import score
    from sepml.speech.separation.separator import Separator
    from sepml.speech.separation.separators import Separators

__all__ = ["Separator", "Separators", "__version__", "score"]


def __getattr__(name: str) -> Any:
    if name == "Separator":
        from sepml.speech.separation.separator import Separator

        return Separator
    if name == "Separators":
        from sepml.speech.separation.separators import Separators

        return Separators
    if name == "score":
        from sepml.speech.scoring.utterance import score

        return score
    raise AttributeError(f"module 'sepml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
