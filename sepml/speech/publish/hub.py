"""Separators on the Hugging Face Hub, by the Hub library's own mixin."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from sepml.errors import SepmlError
from sepml.speech.models.hub_answers import PORTAL
from sepml.system.files import write_json

if TYPE_CHECKING:
    import torch

    from sepml.speech.models.checkpoint_file import Architecture
    from sepml.speech.models.load import Origin

T = TypeVar("T", bound="HubMixin")


class HubMixin(ModelHubMixin, library_name="sepml"):
    """What a separator has to do with the Hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    Attributes:
        origin: where the models were loaded from; None of those made in memory.
    """

    origin: "Origin | None" = None

    @classmethod
    def from_pretrained(
        cls: type[T],
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        ensemble: bool = False,
        device: "str | torch.device" = "cpu",
        architecture: "Architecture | None" = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> T:
        """The separator in a folder, a checkpoint of Asteroid's, or a repository on the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: a model folder, an experiment's folder, a checkpoint, or `user/name`, also with
                `@revision`; what exists on this machine goes first. None is the pair that comes with sepml.
            ensemble: average all peers of an experiment's folder.
            architecture: the network of a checkpoint that holds weights alone, see `checkpoint_file.Architecture`.
            revision, token, cache_dir, force_download, local_files_only: as everywhere in `huggingface_hub`.

        Raises:
            SepmlError: there is no such model, it cannot be fetched or read, or a peer has to be named.
        """
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
        hub |= {"force_download": force_download, "local_files_only": local_files_only}
        return cls.load(pretrained_model_name_or_path, ensemble, device, architecture, **hub)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the models and a model card (README.md, unless there is one) to a folder that `from_pretrained` takes.

        Args:
            options: of `huggingface_hub.ModelHubMixin.save_pretrained`; `model_card_kwargs` are those of
                `sepml.speech.publish.card.make_card`, such as `{"license": "cc-by-4.0"}`.

        Raises:
            SepmlError: the folder cannot be written.
        """
        # Where it lies on this machine is nobody else's business: only a relative path is told.
        folder = Path(save_directory)
        told = {"saved_to": folder.as_posix() if not folder.is_absolute() else folder.name}
        options["model_card_kwargs"] = told | (options.get("model_card_kwargs") or {})
        try:
            return super().save_pretrained(save_directory, **options)
        except (FileExistsError, NotADirectoryError) as error:
            raise SepmlError(
                f"{save_directory}: cannot be written, as {error.filename} is a file, expected a folder"
            ) from error
        except OSError as error:
            raise SepmlError(f"{save_directory}: cannot be written: {error.strerror or error}") from error

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the models and their card to the Hugging Face Hub; the repository is made when absent.

        Args:
            repo_id: `user/name`.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch, commit_message ...

        Returns:
            the address of the commit.

        Raises:
            SepmlError: the Hub refuses or cannot be reached.
        """
        options["model_card_kwargs"] = {**(options.get("model_card_kwargs") or {}), "saved_to": repo_id}
        with asking_the_hub(repo_id, options.get("branch")):
            return str(super().push_to_hub(repo_id, **options))

    def generate_model_card(self, **kwargs: Any) -> ModelCard:
        """The card of the models, from the run that trained them; see `sepml.speech.publish.card.make_card`."""
        from sepml.speech.publish.card import make_card

        return ModelCard(make_card(self.models, self.origin, **kwargs))

    def _save_pretrained(self, save_directory: Path) -> None:
        from sepml.speech.models.load import ENSEMBLE_FORMAT
        from sepml.speech.models.model import save_model

        if len(self.models) == 1:
            save_model(save_directory, self.models[0])
            return
        for number, model in enumerate(self.models, 1):
            save_model(save_directory / f"peer{number}", model)
        write_json(save_directory / "config.json", {"format": ENSEMBLE_FORMAT, "peers": len(self.models)})


@contextmanager
def asking_the_hub(repo: str, revision: str | None = None, before: str = "", only_here: bool = False) -> Iterator[None]:
    """With bars on a terminal only, and with what goes wrong as one line.

    Args:
        before: put before what the Hub says when there is no such model.
        only_here: the Hub is not asked, what was fetched earlier has to do.

    Raises:
        SepmlError: the Hub refuses or cannot be reached, or what it sends cannot be kept.
    """
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    except SepmlError:
        raise
    except Exception as error:
        not_here = only_here and isinstance(error, LocalEntryNotFoundError)
        said = f"{before}not in the local cache" if not_here else _said(error, repo, revision, before)
        if said is None:
            raise
        raise SepmlError(f"{repo}: {said}") from error
    finally:
        if quiet:
            enable_progress_bars()


def _said(error: BaseException, repo: str, revision: str | None, before: str) -> str | None:
    """What an error of the Hub's client means; None when it is none of those."""
    hub = f"the Hugging Face Hub ({constants.ENDPOINT})"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        # The client looked for an earlier copy when the Hub refused; why it refused is what matters.
        return _said(error.__cause__, repo, revision, before)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, FileMetadataError):
        return f"{hub} answers without the commit or the ETag of a file; {PORTAL}"
    if isinstance(error, GatedRepoError):
        return f"{hub} wants you to agree to its terms there first, and HF_TOKEN set"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub} has no revision '{revision}' of it"
    if isinstance(error, RepositoryNotFoundError):
        return f"{before}{hub} has no such model, or only for those who may see it (HF_TOKEN)"
    if isinstance(error, HFValidationError):
        return f"{before}not an id of {hub}, expected user/name"
    if isinstance(error, HfHubHTTPError):
        lines = (error.server_message or str(error)).strip().splitlines() or ["nothing"]
        return f"{hub} answers {error.response.status_code}: {lines[0]}"
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{before}not fetched earlier, and HF_HUB_OFFLINE forbids asking {hub}"
    # The client underneath has errors of its own for each way in which a connection fails.
    if isinstance(error, LocalEntryNotFoundError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return f"{before}{hub} cannot be reached"
    return f"cannot be kept on this machine: {error}" if isinstance(error, OSError) else None
