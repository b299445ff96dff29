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
from torch import Tensor

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.adaptation.blind import BlindScores, blind_scores, decision
from sepml.speech.adaptation.learn import Learner, LearningSettings, between
from sepml.speech.data.material import SECONDS, Material, read_material
from sepml.speech.models.inference import estimates
from sepml.speech.models.load import ENSEMBLE_FORMAT, best_peer, find_model, load_models, locate
from sepml.speech.models.model import SeparationModel, save_model
from sepml.speech.remix import agreement_of, is_separated, pseudo_references
from sepml.system.files import atomic_path, write_json
from sepml.system.process import LOCK, locked
from sepml.system.progress import track
from sepml.system.readers import read_object
from sepml.system.stamp import WAY_OUT, Request, model_fingerprint, require_own
from sepml.system.temporaries import contents
from sepml.training.model_folder import load_plain

log = logging.getLogger(__name__)
NOTE, STATE = "adapt.json", "adapt.ckpt"
_FORMAT = "sepml-adaptation-1"
_LEAST_SEGMENTS = 8
# Of the segments: a quarter is held out to judge by, so many at most.
_HELD_OUT, _MOST_HELD_OUT = 4, 128
# Of a recording's segments, those with several talkers; of these, those on which the models agree to so many dB.
_LEAST_HEARD, _LEAST_AGREED, _AGREED_DB = 0.1, 0.5, 9.0
_SAVE_EVERY, _TIMED, _LEAST_STEPS = 25, 3, 10
# Of the minutes; the rest is for reading, timing and deciding.
_LEARNING_PART = 0.8


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
        steps: that were made. segments: that were learnt from. seconds: of all segments in which several talk.
        scores: on held-out remixes of the estimates of the `start` and of the `adapted` model.
        left_out: a line for each recording that was not used.
    """

    kept: bool
    reason: str
    steps: int
    segments: int
    seconds: float
    scores: dict[str, BlindScores]
    left_out: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The result in one line."""
        count = len(self.left_out)
        left_out = f", {count} recording{'s' * (count != 1)} left out" if count else ""
        what = "adapted" if self.kept else "not adapted"
        return f"{what}, {self.steps} steps on {self.seconds:.0f} s of several talkers{left_out}; {self.reason}"


@dataclass(frozen=True)
class Start:
    """Where an adaptation starts.

    Attributes:
        models: the peers. best: which of them is the best one, counted from 1.
    """

    models: Sequence[SeparationModel]
    best: int = 1


def load_start(model: str | Path | None, device: str = "cpu") -> Start:
    """The models of a name, all peers of a folder.

    Args:
        model: see `sepml.speech.models.load.locate`.

    Raises:
        SepmlError: there is no such model, or it cannot be read.
    """
    path, _ = locate(model)
    models, origin = load_models(find_model(path, ensemble=(path / "peer1").is_dir()), device=device)
    return Start(models, best_peer(origin.path / "best.json") or 1)


def adapt(start: Start, files: Sequence[Path], out: Path, settings: AdaptSettings | None = None) -> Adaptation:
    """Learn from recordings, and write the model that the blind decision chose to a folder.

    Killed and called again, it goes on; called again when it is done, it returns what was decided.

    Raises:
        SepmlError: no recording can be used, or the folder holds something else.
    """
    settings = settings or AdaptSettings()
    material = _of_several_talkers(start, read_material(files, start.models[0].config.sample_rate, settings.seed))
    for line in material.left_out:
        log.warning("left out: %s", line)
    count = len(material.segments)
    if count < _LEAST_SEGMENTS:
        found = f"{count} segments of {SECONDS:g} s in which the model hears several talkers"
        raise SepmlError(f"{found} are too few to learn from, expected {_LEAST_SEGMENTS} or more")
    asked = {"model": model_fingerprint(start.models), "recordings": list(material.digests), "seed": settings.seed}
    asked |= {"learning": asdict(settings.learning), "minutes": None if settings.steps else settings.minutes}
    with locked(out):
        note = _claim(out, asked | ({"steps": settings.steps} if settings.steps else {}))
        if "result" in note:
            log.info("%s: was done before", out)
            return replace(parse(Adaptation, note["result"], str(out / NOTE)), left_out=material.left_out)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed))
        held, learnt = material.segments[order].tensor_split(
            [min(max(count // _HELD_OUT, _LEAST_SEGMENTS // 2), _MOST_HELD_OUT)]
        )
        models = copy.deepcopy(list(start.models))
        steps = note.get("steps") or settings.steps or _steps_for(models, learnt, settings)
        write_json(out / NOTE, {"format": _FORMAT, "asked": asked, "steps": steps})
        with Learner(models, learnt, steps, settings.learning, settings.seed) as learner:
            _learn(learner, out / STATE)
        models = between(start.models, models, settings.learning.share)
        scores = blind_scores(start.models, models, held, settings.learning.gain_db, settings.seed)
        result = Adaptation(*decision(scores), steps, len(learnt), count * SECONDS, scores)
        _write_models(out, replace(start, models=models) if result.kept else start)
        facts = {name: value for name, value in asdict(result).items() if name != "left_out"}
        write_json(out / NOTE, {"format": _FORMAT, "asked": asked, "steps": steps, "result": facts})
        (out / STATE).unlink(missing_ok=True)
    return replace(result, left_out=material.left_out)


def _of_several_talkers(start: Start, material: Material) -> Material:
    """The segments in which the models tell several talkers apart, without the recordings in which they do not."""
    apart, agree = [], []
    for part in track(material.segments.split(16), "separating segments"):
        ests = [estimates(model, part) for model in start.models]
        apart.append(is_separated(pseudo_references(ests, part), part))
        agree.append(agreement_of(ests).flatten(0, 1).amin(0) >= _AGREED_DB)
    heard, agreed = torch.cat(apart), torch.cat(agree)
    reasons = {}
    for number in range(len(material.files)):
        own = material.owners == number
        both = own & heard
        if float(heard[own].float().mean()) < _LEAST_HEARD:
            reasons[number] = "the model does not hear two talkers at once in it"
        # A few segments say little about a recording; the gate looks at each.
        elif int(both.sum()) >= _LEAST_SEGMENTS and float(agreed[both].float().mean()) < _LEAST_AGREED:
            reasons[number] = "the networks of the model do not agree about it (music, noise, more talkers than they know?)"
    return material.without(reasons, heard)


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
    with Learner(copy.deepcopy(models), segments, 1_000_000, settings.learning, settings.seed) as trial:
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


def _write_models(out: Path, start: Start) -> None:
    if len(start.models) == 1:
        save_model(out, start.models[0])
        return
    for k, model in enumerate(start.models):
        save_model(out / f"peer{k + 1}", model)
    write_json(out / "best.json", {"peer": start.best})
    write_json(out / "config.json", {"format": ENSEMBLE_FORMAT, "peers": len(start.models)})
