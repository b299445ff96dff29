"""Adapt a separator to recordings without references: a folder that `sepml separate --model` uses, and what was decided.

The folder holds no audio and no names of recordings, only digests of their content.
"""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.adaptation.learn import Learner, LearningSettings
from sepml.speech.data.material import SECONDS, read_material
from sepml.speech.losses import upit_si_snr
from sepml.speech.models.load import ENSEMBLE_FORMAT, Origin, best_peer, find_model, load_models, locate
from sepml.speech.models.model import SeparationModel, save_model
from sepml.speech.remix import is_separated, pseudo_references, remixed
from sepml.system.files import atomic_path, write_json
from sepml.system.process import LOCK, locked
from sepml.system.readers import read_object
from sepml.system.stamp import WAY_OUT, Request, model_fingerprint, require_own
from sepml.system.temporaries import contents
from sepml.training.model_folder import load_plain

log = logging.getLogger(__name__)
NOTE, STATE = "adapt.json", "adapt.ckpt"
_FORMAT = "sepml-adaptation-1"
_LEAST_SEGMENTS, _HELD_OUT = 8, 8
_SAVE_EVERY, _TIMED, _LEAST_STEPS = 25, 3, 10
# Of the minutes; the rest is for reading, timing and deciding.
_LEARNING_PART = 0.85


@dataclass(frozen=True)
class AdaptSettings:
    """How to adapt.

    Attributes:
        minutes: working time, from which a number of steps is made by a short timing, and noted.
        steps: the number of steps; None is by `minutes`.
        seed: of everything that is drawn.
    """

    minutes: float = 10.0
    steps: int | None = None
    seed: int = 0
    learning: LearningSettings = field(default_factory=LearningSettings)


@dataclass(frozen=True)
class Adaptation:
    """The result.

    Attributes:
        kept: whether the folder holds the adapted model; else it holds the one that was started from.
        reason: why, one line.
        steps: that were made. segments: that were learnt from. seconds: of all recordings' used segments.
        gains: dB of SI-SNR on held-out remixes of the estimates of the start and of the adapted model: mean and standard error.
        left_out: a line for each recording that was not used.
    """

    kept: bool
    reason: str
    steps: int
    segments: int
    seconds: float
    gains: dict[str, tuple[float, float]]
    left_out: tuple[str, ...] = ()


def adapt(
    model: str | Path | None, files: Sequence[Path], out: Path, settings: AdaptSettings | None = None, device: str = "cpu"
) -> Adaptation:
    """Learn from recordings, and write the model that the blind decision chose to a folder.

    Killed and called again, it goes on; called again when it is done, it returns what was decided.

    Args:
        model: where to start from, see `sepml.speech.models.load.locate`; all peers of a folder take part.

    Raises:
        SepmlError: the model cannot be read, no recording can be used, or the folder holds something else.
    """
    settings = settings or AdaptSettings()
    origin = _with_all_peers(model)
    models, _ = load_models(origin, device=device)
    material = read_material(files, models[0].config.sample_rate, settings.seed)
    for line in material.left_out:
        log.warning("left out: %s", line)
    count = len(material.segments)
    if count < _LEAST_SEGMENTS:
        found = f"{count} segments of {SECONDS:g} s in which somebody speaks"
        raise SepmlError(f"{found} are too few to learn from, expected {_LEAST_SEGMENTS} or more")
    asked = {"model": model_fingerprint(origin.parts), "recordings": list(material.digests), "seed": settings.seed}
    asked |= {"learning": asdict(settings.learning), "minutes": None if settings.steps else settings.minutes}
    with locked(out):
        note = _claim(out, asked | ({"steps": settings.steps} if settings.steps else {}))
        if "result" in note:
            log.info("%s: was done before", out)
            return replace(parse(Adaptation, note["result"], str(out / NOTE)), left_out=material.left_out)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed))
        held, learnt = material.segments[order].tensor_split([max(_LEAST_SEGMENTS // 2, count // _HELD_OUT)])
        start = copy.deepcopy(models)
        steps = note.get("steps") or settings.steps or _steps_for(models, learnt, settings)
        write_json(out / NOTE, {"format": _FORMAT, "asked": asked, "steps": steps})
        _learn(Learner(models, learnt, steps, settings.learning, settings.seed), out / STATE)
        gains = blind_gains(start, models, held, settings.learning.gain_db, settings.seed)
        kept, reason = decision(gains)
        result = Adaptation(kept, reason, steps, len(learnt), count * SECONDS, gains)
        _write_models(out, models if kept else start, origin)
        facts = {name: value for name, value in asdict(result).items() if name != "left_out"}
        write_json(out / NOTE, {"format": _FORMAT, "asked": asked, "steps": steps, "result": facts})
        (out / STATE).unlink(missing_ok=True)
    return Adaptation(**facts, left_out=material.left_out)


def blind_gains(
    start: Sequence[nn.Module], adapted: Sequence[nn.Module], mixtures: Tensor, gain_db: float, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """How much better the adapted models separate new mixtures whose parts are known, without any reference.

    The new mixtures are made of estimates of held-out segments: once of the start's, once of the adapted models'.

    Args:
        mixtures: `(N, T)`, from which nothing was learnt. gain_db, seed: of the new mixtures, see `remixed`.

    Returns:
        `start` and `adapted` -> mean gain in SI-SNR, dB, and its standard error; empty ones where too few segments are
        separated at all.

    Source: blind validation is MixCycle's (Karamatli, Kirbiz, 2022).
    """
    gains = {}
    for name, makers in (("start", start), ("adapted", adapted)):
        sources = torch.cat([pseudo_references(_estimates(makers, part), part) for part in mixtures.split(16)])
        chosen = is_separated(sources, mixtures)
        if int(chosen.sum()) < _LEAST_SEGMENTS // 2:
            continue
        new = remixed(mixtures[chosen], sources[chosen], torch.Generator().manual_seed(seed), gain_db)
        before, after = (_scores(models, new.mixture, new.sources) for models in (start, adapted))
        difference = after - before
        gains[name] = float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
    return gains


def decision(gains: dict[str, tuple[float, float]]) -> tuple[bool, str]:
    """Whether the adapted models are kept: both gains have to be above their standard error."""
    if len(gains) < 2:
        return False, "the models separate too few of the held-out segments to judge by"
    shown = " and ".join(f"{mean:+.2f} dB (+- {error:.2f}) on remixes of {name}" for name, (mean, error) in gains.items())
    kept = all(mean > error for mean, error in gains.values())
    return kept, f"{shown}: {'better' if kept else 'not surely better, the model that was started from stays'}"


def _with_all_peers(model: str | Path | None) -> Origin:
    path, _ = locate(model)
    return find_model(path, ensemble=(path / "peer1").is_dir())


def _claim(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What the folder holds of this very adaptation; empty where it begins."""
    try:
        note = read_object(out / NOTE, "note of an adaptation")
    except FileNotFoundError:
        require_own(out, "an adaptation", NOTE, [name for name in contents(out) if name != LOCK])
        return {}
    was, steps = note.get("asked"), note.get("steps")
    if note.get("format") != _FORMAT or not isinstance(was, dict) or type(steps) is not int:
        raise SepmlError(f"{out / NOTE}: is no note of an adaptation of this version; {WAY_OUT}")
    Request(asked).claim(out, "an adaptation", was | ({"steps": steps} if "steps" in asked else {}))
    return note


def _steps_for(models: Sequence[SeparationModel], segments: Tensor, settings: AdaptSettings) -> int:
    """The steps that fit into the minutes, by a short timing with copies."""
    trial = Learner(copy.deepcopy(models), segments, 1_000_000, settings.learning, settings.seed)
    trial.step()
    started = time.monotonic()
    for _ in range(_TIMED):
        trial.step()
    seconds = (time.monotonic() - started) / _TIMED
    steps = max(_LEAST_STEPS, int(60 * settings.minutes * _LEARNING_PART / seconds))
    log.info("%d steps of %.2f s fit into %g min", steps, seconds, settings.minutes)
    return steps


def _learn(learner: Learner, state: Path) -> None:
    if state.exists():
        try:
            learner.load(load_plain(state))
        # Whatever a damaged file makes of the reader, and of the networks that take its content.
        except Exception as error:
            raise SepmlError(f"{state}: is damaged ({type(error).__name__}); delete it to learn from the start") from error
        log.info("going on after step %d of %d", learner.done, learner.steps)
    started, begun = time.monotonic(), learner.done
    while learner.done < learner.steps:
        figures = learner.step()
        if learner.done % _SAVE_EVERY == 0 or learner.done == learner.steps:
            with atomic_path(state) as temporary:
                torch.save(learner.state(), temporary)
            left = (time.monotonic() - started) / (learner.done - begun) * (learner.steps - learner.done)
            shown = f"agreement {figures.agreement:.1f} dB, gate open {figures.gate_open:.0%}"
            log.info("step %d of %d: %s, %.0f s left", learner.done, learner.steps, shown, left)


@torch.no_grad()
def _estimates(models: Sequence[nn.Module], mixture: Tensor) -> list[Tensor]:
    device = next(models[0].parameters()).device
    return [model(mixture.to(device)).float().cpu() for model in models]


def _scores(models: Sequence[nn.Module], mixture: Tensor, sources: Tensor) -> Tensor:
    """SI-SNR of the models' average, `(N,)`, dB."""
    parts = zip(mixture.split(16), sources.split(16), strict=True)
    return torch.cat([upit_si_snr(pseudo_references(_estimates(models, x), x), s, mixture=x) for x, s in parts])


def _write_models(out: Path, models: Sequence[SeparationModel], origin: Origin) -> None:
    if len(models) == 1:
        save_model(out, models[0])
        return
    for k, model in enumerate(models):
        save_model(out / f"peer{k + 1}", model)
    write_json(out / "best.json", {"peer": best_peer(origin.path / "best.json") or 1})
    write_json(out / "config.json", {"format": ENSEMBLE_FORMAT, "peers": len(models)})
