"""The files of a published separator and their upload, by the mixin of the Hub's library."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepml.speech.models.load import ENSEMBLE_FORMAT, Origin, best_peer
from sepml.speech.models.model import SeparationModel, save_model
from sepml.speech.publish.card import make_card
from sepml.system.extras import needs_extra
from sepml.system.files import write_json

with needs_extra("hub", "publishing a model"):
    from huggingface_hub import ModelCard, ModelHubMixin


class HubFiles(ModelHubMixin, library_name="sepml"):
    """Models as the Hub's library writes and uploads them.

    Args:
        models: the networks.
        origin: where they were loaded from; None for networks that were built in memory.
    """

    def __init__(self, models: Sequence[SeparationModel], origin: Origin | None) -> None:
        self.models, self.origin = models, origin

    def generate_model_card(self, **kwargs: Any) -> ModelCard:
        """The card of the models, from the run that trained them; see `sepml.speech.publish.card.make_card`."""
        return ModelCard(make_card(self.models, self.origin, **kwargs))

    def _save_pretrained(self, save_directory: Path) -> None:
        if len(self.models) == 1:
            save_model(save_directory, self.models[0])
            return
        for number, model in enumerate(self.models, 1):
            save_model(save_directory / f"peer{number}", model)
        write_json(save_directory / "config.json", {"format": ENSEMBLE_FORMAT, "peers": len(self.models)})
        # The best of all peers of a folder is the best of its copy, in which they are counted anew.
        best = best_peer(self.origin.path / "best.json") if self.origin else None
        names = [part.name for part in self.origin.parts] if self.origin else []
        if (name := f"peer{best}") in names:
            write_json(save_directory / "best.json", {"peer": names.index(name) + 1})
