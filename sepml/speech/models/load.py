"""Finds and reads the models that are named by a folder, a checkpoint, or an id of the Hugging Face Hub."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepml.errors import SepmlError, shown
from sepml.speech.models.config import HYPERPARAMS, SPEECHBRAIN_PARTS, Architecture
from sepml.system.readers import read_object

if TYPE_CHECKING:
    import torch

    from sepml.speech.models.model import SeparationModel

_PRETRAINED = Path(__file__).resolve().parents[2] / "pretrained"
DEFAULT = _PRETRAINED / "prompts-2mix"
"""The pair that comes with sepml: used when no model is named."""
UP_TO_THREE = _PRETRAINED / "prompts-3mix"
"""The pair for up to three talkers, which also counts them."""
CAUSAL = _PRETRAINED / "prompts-2mix-causal"
"""One network that hears nothing of what comes later, for live separation with the least delay."""
_SHIPPED = {path.name: path for path in (DEFAULT, UP_TO_THREE, CAUSAL)}
ENSEMBLE_FORMAT = "sepml-ensemble-1"
log = logging.getLogger(__name__)
_CHECKPOINT = "pytorch_model.bin"
_SUFFIXES = (".pth", ".bin", ".pt", ".ckpt")
_FETCHED = ["config.json", "model.safetensors", "best.json", "agreement.json"]
_FETCHED += ["peer*/config.json", "peer*/model.safetensors", _CHECKPOINT]
_FETCHED += [HYPERPARAMS, *(f"{part}.ckpt" for part in SPEECHBRAIN_PARTS)]
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_KINDS = "a model folder, an experiment's folder, an Asteroid checkpoint or a Hugging Face Hub id (user/name)"


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


def load_models(
    model: str | Path | Origin | None = None,
    ensemble: bool = False,
    device: "str | torch.device" = "cpu",
    architecture: Architecture | None = None,
    *,
    single: bool = False,
    **hub: Any,
) -> "tuple[list[SeparationModel], Origin]":
    """The models of a name, in evaluation mode, and where they come from.

    Args:
        model: see `locate`; or the result of `find_model`, for which `ensemble`, `single` and `hub` are ignored.
        hub: see `locate`.
        ensemble, single: see `model_parts`.
        architecture: the network of a checkpoint that does not name it.

    Raises:
        UnknownNetwork: a checkpoint does not name its network.
        SepmlError: there is no such model, it cannot be fetched or read, or a peer has to be named.
    """
    from sepml.speech.models.asteroid_checkpoint import load_asteroid
    from sepml.speech.models.model import load_model
    from sepml.speech.models.speechbrain_checkpoint import load_speechbrain
    from sepml.speech.models.tiger_checkpoint import is_tiger, load_tiger

    origin = model if isinstance(model, Origin) else find_model(model, ensemble, single, **hub)
    if architecture is not None and not all(part.is_file() for part in origin.parts):
        raise SepmlError(f"{origin.name}: names its network itself; a network is named only for a checkpoint of weights alone")

    def loaded(part: Path) -> "SeparationModel":
        if part.is_file():
            return load_asteroid(part, device, architecture)
        if (part / HYPERPARAMS).is_file():
            return load_speechbrain(part, device)
        return load_tiger(part, device) if is_tiger(part) else load_model(part, device)

    return [loaded(part) for part in origin.parts], origin


def find_model(model: str | Path | None = None, ensemble: bool = False, single: bool = False, **hub: Any) -> Origin:
    """Locate the models of a name; `load_models` reads them.

    Raises:
        SepmlError: there is no such model, it cannot be fetched, or a peer has to be named.
    """
    path, commit = locate(model, **hub)
    return Origin(str(model or "the model that comes with sepml"), path, tuple(model_parts(path, ensemble, single)), commit)


def locate(model: str | Path | None = None, **hub: Any) -> tuple[Path, str | None]:
    """The path of a model on this machine; a model of the Hugging Face Hub is fetched.

    Args:
        model: a folder or a file, the name of a model that comes with sepml (`prompts-2mix`, `prompts-3mix` or
            `prompts-2mix-causal`), or a Hub id `user/name` or `user/name@revision`; an existing file or folder takes
            precedence. None is `prompts-2mix`.
        hub: of `huggingface_hub.snapshot_download`: revision, token, cache_dir, force_download, local_files_only.

    Returns:
        the path, and the commit of a model from the Hub.

    Raises:
        SepmlError: there is no such model on this machine or on the Hub, the Hub cannot be reached, or a revision is given
            for a path on this machine.
    """
    path = DEFAULT if model is None else Path(model)
    if not os.path.exists(path):
        path = _SHIPPED.get(str(model), path)
    named = hub.pop("revision", None)
    if os.path.exists(path):
        if named is not None:
            raise SepmlError(f"{path}: is on this machine and has no revisions, revision is {named!r}; leave it out")
        return path, None
    if path in (DEFAULT, *_SHIPPED.values()):
        raise SepmlError(f"{path}: the model that comes with sepml is absent from this installation; name another model")
    found = _HUB_ID.fullmatch(str(model))
    if not found:
        raise SepmlError(f"{model}: no such folder; expected {_KINDS}")
    if found["revision"] and named not in (None, found["revision"]):
        raise SepmlError(f"{model}: revision is {named!r} as well; expected one of the two")
    return _fetch(found["repo"], found["revision"] or named, hub)


def model_parts(path: Path, ensemble: bool = False, single: bool = False) -> list[Path]:
    """The model folders or the checkpoint at a path.

    Args:
        path: from an experiment's folder, the peer that its best.json names (`{"peer": 2}`) is taken; from a folder whose
            config.json says that its models are averaged, such as the pair that comes with sepml, all of them.
        ensemble: take all peers of an experiment's folder.
        single: take the peer that best.json names, also from models that are averaged.

    Raises:
        SepmlError: there is no model, a peer has to be named, or `ensemble` and `single` are both set.
    """
    if ensemble and single:
        raise SepmlError("`ensemble` asks for all models and `single` for one; expected one of the two at most")
    if path.is_file() and path.suffix.lower() in _SUFFIXES:
        _refuse_ensemble(path, ensemble)
        return [path]
    if path.is_file():
        raise SepmlError(f"{path}: is a file, but no checkpoint ({', '.join(_SUFFIXES)}); expected {_KINDS}")
    if not path.is_dir():
        raise SepmlError(f"{path}: no such folder; expected {_KINDS}")
    kind = model_format(path / "config.json")
    numbers = sorted(int(f.name[4:]) for f in path.iterdir() if f.name[:4] == "peer" and f.name[4:].isdecimal())
    peers = [path / f"peer{number}" for number in numbers]
    if kind == ENSEMBLE_FORMAT:
        if not peers:
            raise SepmlError(f"{path}: its config.json says that it holds several models, but there is no peer1/, peer2/")
        return [_best_of(path, peers)] if single else peers
    if (path / _CHECKPOINT).is_file() and kind is None:
        _refuse_ensemble(path, ensemble)
        return [path / _CHECKPOINT]
    if (path / "config.json").is_file() or (path / HYPERPARAMS).is_file():
        _refuse_ensemble(path, ensemble)
        return [path]
    if not peers:
        if theirs := _asteroid_checkpoint_in(path):
            raise SepmlError(f"{path}: is the folder of an experiment with Asteroid; name its checkpoint, {theirs}")
        raise SepmlError(
            f"{path}: holds neither a config.json (a model) nor peer1/, peer2/ (an experiment) nor a {_CHECKPOINT} (Asteroid's)"
        )
    return peers if ensemble or len(peers) == 1 else [_best_of(path, peers)]


def _best_of(path: Path, peers: Sequence[Path]) -> Path:
    """The peer that the best.json of a folder names."""
    best = best_peer(path / "best.json")
    if path / f"peer{best}" not in peers:
        named = f"best.json names peer {best}, which is absent" if best is not None else "no best.json names one"
        raise SepmlError(f"{path}: holds {len(peers)} peers and {named}; name one, such as {peers[0]}, or ask for all")
    log.log(logging.DEBUG if path == DEFAULT else logging.INFO, "%s: peer %d, as best.json says", path, best)
    return path / f"peer{best}"


def _asteroid_checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint to use in a folder that an Asteroid recipe has written: its best model, or else Lightning's last."""
    best = folder / "best_model.pth"
    found = sorted(folder.glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
    return best if best.is_file() else found[-1] if found else None


def _refuse_ensemble(path: Path, ensemble: bool) -> None:
    if ensemble:
        raise SepmlError(f"{path}: holds one model; an ensemble needs the experiment folder with its peers")


def best_peer(file: Path) -> int | None:
    """The number in a best.json; None where there is no such file.

    Raises:
        SepmlError: it is no number, or the file cannot be read.
    """
    try:
        peer = read_object(file, 'note of the best peer, such as {"peer": 1}').get("peer")
    except FileNotFoundError:
        return None
    if type(peer) is not int:
        raise SepmlError(f"{file}: peer is {shown(peer)}, expected its number")
    return peer


def _fetch(repo: str, revision: str | None, options: dict[str, Any]) -> tuple[Path, str]:
    """The files of a model from the Hugging Face Hub, or from the local cache."""
    from sepml.speech.models.hub_client import checked_answers, hub_errors, snapshot_download

    only_here = bool(options.get("local_files_only"))
    with hub_errors(repo, revision, "no such folder or file here, and ", only_here), checked_answers(repo):
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_FETCHED, library_name="sepml", **options))
    if not folder.is_dir() or not any(folder.iterdir()):
        raise SepmlError(f"{repo}: the model on the Hugging Face Hub holds none of {', '.join(_FETCHED)}")
    log.info("%s: commit %s of the Hugging Face Hub; %s@%s always names this version", repo, folder.name, repo, folder.name)
    return folder, folder.name
