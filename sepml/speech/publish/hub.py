"""Loading and saving of separators in folders and on the Hugging Face Hub, whose library is imported by the latter alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from sepml.errors import SepmlError
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import Origin, load_models
from sepml.speech.models.model import SeparationModel
from sepml.training.hardware import choose_device

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from sepml.speech.publish.hub_files import HubFiles


class HubMixin:
    """Models in evaluation mode that are loaded from and saved to folders and the Hub.

    Attributes:
        models: the networks.
        origin: where they were loaded from; None for networks that were built in memory.
    """

    origin: Origin | None = None

    def __init__(self, models: Sequence[SeparationModel]) -> None:
        self.models = [model.eval() for model in models]

    @classmethod
    def load(
        cls,
        path: str | Path | Origin | None = None,
        ensemble: bool = False,
        device: str | torch.device = "cpu",
        architecture: Architecture | None = None,
        *,
        single: bool = False,
        **hub: Any,
    ) -> Self:
        """Load a separator: a model folder, an experiment's folder, an Asteroid checkpoint or a model on the Hub.

        Args:
            path: a folder, a checkpoint, or `user/name` or `user/name@revision` on the Hub; an existing path has precedence.
                For an experiment's folder, the peer that its best.json names (`{"peer": 2}`) is loaded. None is the
                average of the pair that comes with sepml. A result of `sepml.speech.models.load.find_model` is accepted too.
            ensemble: average all peers of an experiment's folder.
            single: one network, also of models that are averaged by default; of the pair that comes with sepml the better one.
            architecture: the network of a checkpoint that holds weights alone.
            hub: options of `huggingface_hub.snapshot_download`.

        Raises:
            SepmlError: there is no model, it cannot be fetched or read, a peer has to be named, or there is no such device.
        """
        models, origin = load_models(path, ensemble, _device(device), architecture, single=single, **hub)
        separator = cls(models)
        separator.origin = origin
        return separator

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        ensemble: bool = False,
        single: bool = False,
        device: str | torch.device = "cpu",
        architecture: Architecture | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """`load` with the arguments of `huggingface_hub.ModelHubMixin.from_pretrained`.

        Args:
            pretrained_model_name_or_path, ensemble, single, device, architecture: see `load`.
            revision, token, cache_dir, force_download, local_files_only: as in `huggingface_hub`; a revision is for a
                repository on the Hub only.

        Raises:
            SepmlError: see `load`; or a revision is given for a path.
        """
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
        hub |= {"force_download": force_download, "local_files_only": local_files_only}
        return cls.load(pretrained_model_name_or_path, ensemble, device, architecture, single=single, **hub)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the models, and a model card (README.md) if there is none, to a folder that `from_pretrained` can load.

        Args:
            options: of `huggingface_hub.ModelHubMixin.save_pretrained`; `model_card_kwargs` are those of
                `sepml.speech.publish.card.make_card`, such as `{"license": "cc-by-4.0"}`.

        Raises:
            SepmlError: the folder cannot be written.
        """
        # The card shows only the last part of an absolute path, which is private.
        folder = Path(save_directory)
        saved_to = folder.name if folder.is_absolute() else folder.as_posix()
        options["model_card_kwargs"] = {"saved_to": saved_to} | (options.get("model_card_kwargs") or {})
        try:
            return self._files().save_pretrained(save_directory, **options)
        except (FileExistsError, NotADirectoryError) as error:
            raise SepmlError(
                f"{save_directory}: cannot be written, as {error.filename} is a file, expected a folder"
            ) from error
        except OSError as error:
            raise SepmlError(f"{save_directory}: cannot be written: {error.strerror or error}") from error

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the models and their card to the Hugging Face Hub; the repository is created if it does not exist.

        Args:
            repo_id: `user/name`.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch, commit_message ...

        Returns:
            the address of the commit.

        Raises:
            SepmlError: the Hub refuses or cannot be reached.
        """
        options["model_card_kwargs"] = {**(options.get("model_card_kwargs") or {}), "saved_to": repo_id}
        files = self._files()
        from sepml.speech.models.hub_client import hub_errors

        with hub_errors(repo_id, options.get("branch")):
            return str(files.push_to_hub(repo_id, **options))

    def generate_model_card(self, **kwargs: Any) -> "ModelCard":
        """The card of the models, from the run that trained them; see `sepml.speech.publish.card.make_card`."""
        return self._files().generate_model_card(**kwargs)

    def _files(self) -> "HubFiles":
        from sepml.speech.publish.hub_files import HubFiles

        return HubFiles(self.models, self.origin)


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SepmlError(f"there is no device {device!r}; expected cpu, cuda, cuda:0 or the like, or mps") from error
    if found.type in ("cuda", "mps"):
        choose_device(found.type)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SepmlError(f"there is no device '{found}'; this machine has {torch.cuda.device_count()}, counted from cuda:0")
    return found
