"""Mixtures separated and scored: with the network in this process and scores in others, or both in one process."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.speech.audio.files import open_audio
from sepml.speech.audio.recordings import of_subtype
from sepml.speech.models.load import Origin
from sepml.speech.results.scores import UtteranceScores
from sepml.speech.scoring.resume import ENSEMBLE
from sepml.speech.scoring.trial import Trial, read_trial
from sepml.speech.separation.options import OutputFormat
from sepml.speech.separation.outputs import Estimates, write_sources
from sepml.speech.separation.separator import Separator
from sepml.system.parallel import Failure, map_unordered
from sepml.system.pool import pool_of
from sepml.system.progress import track
from sepml.system.stamp import digest_of

_AHEAD = 8
_MOST_BYTES = 1 << 27
Todo = Mapping[int, Trial]
"""Of one mixture: the number of each row that has no scores of it yet -> its files."""
Scored = UtteranceScores | Failure[str]
Score = Callable[[Trial], UtteranceScores]
Result = tuple[int, Trial, Scored]
"""The number of a row, the files, and what came of them."""


@dataclass(frozen=True)
class Windows:
    """The windows in which models see a mixture, see `Separator.separate`: segment in s, overlap as a fraction of it."""

    segment: float | None = None
    overlap: float | None = None


class Remembering(nn.Module):
    """A model that keeps its last outputs by their input, so that a peer runs once for itself and for the average.

    Args:
        model: from mixture (B, T) to est_sources (B, n_src, T).
        most_bytes: of the outputs that are kept; the default is half an hour of two sources at 8 kHz.
    """

    def __init__(self, model: nn.Module, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._most, self._size = most_bytes, 0
        self._known: dict[str, Tensor] = {}

    def forward(self, mixture: Tensor) -> Tensor:
        """The model's output, from memory where the same input (shape, type and bytes) came before."""
        content = mixture.detach().cpu().contiguous()
        key = digest_of([f"{content.dtype} {tuple(content.shape)} ", content.view(torch.uint8).numpy().tobytes()])
        if key in self._known:
            return self._known[key].clone()
        output = self.model(mixture)
        self._known[key] = output.clone()
        self._size += output.nbytes
        while self._size > self._most:
            self._size -= self._known.pop(next(iter(self._known))).nbytes
        return output


def every_peer_and_their_average(separator: Separator, origin: Origin) -> dict[str, Separator]:
    """Separators by the labels of their rows; all share the memory of the peers."""
    peers = [Remembering(peer) for peer in separator.models]
    rows = {part.name: [peer] for part, peer in zip(origin.parts, peers, strict=True)} | {ENSEMBLE: peers}
    separators = {label: copy.copy(separator) for label in rows}
    for label, models in rows.items():
        separators[label].models = cast(Any, models)
    return separators


def scored_elsewhere(todo: Sequence[Todo], separators: Sequence[Separator], score: Score, windows: Windows) -> Iterator[Result]:
    """Let other machines separate and score the mixtures."""
    work = partial(_separated_and_scored, separators=separators, score=score, windows=windows)
    for found in map_unordered(work, todo, what="evaluating"):
        # Failures are part of the results.
        yield from cast(list[Result], found)


def _separated_and_scored(left: Todo, separators: Sequence[Separator], score: Score, windows: Windows) -> list[Result]:
    """One mixture separated and scored in this process."""
    found: list[Result] = []
    for number, trial in left.items():
        try:
            _separate(trial, separators[number], windows)
            found.append((number, trial, score(trial)))
        except SepmlError as error:
            found.append((number, trial, Failure(trial.id, str(error))))
    return found


def scored_beside(
    todo: Sequence[Todo], separators: Sequence[Separator], score: Score, windows: Windows, jobs: int
) -> Iterator[Result]:
    """Separate one mixture after the other; other processes score them meanwhile."""
    waiting: dict[Future[UtteranceScores], tuple[int, Trial]] = {}

    def collected(most: int) -> Iterator[Result]:
        """Finished results; waits until no more than `most` are pending."""
        while waiting:
            done, _ = wait(waiting, None if len(waiting) > most else 0, FIRST_COMPLETED)
            for future in done:
                number, trial = waiting.pop(future)
                try:
                    yield number, trial, future.result()
                except SepmlError as error:
                    yield number, trial, Failure(trial.id, str(error))
            if not done:
                return

    with pool_of(jobs, score) as pool:
        for left in track(todo, "evaluating"):
            for number, trial in left.items():
                try:
                    _separate(trial, separators[number], windows)
                    waiting[pool.submit(score, trial)] = number, trial
                except SepmlError as error:
                    yield number, trial, Failure(trial.id, str(error))
            yield from collected(_AHEAD * jobs)
        yield from collected(0)


def _separate(trial: Trial, separator: Separator, windows: Windows) -> None:
    mixture, _, rate = read_trial(trial)
    with open_audio(trial.mixture) as file:
        output_format = OutputFormat(rate, bits=of_subtype(file.subtype))
    try:
        with Estimates(separator.n_src, None) as est:
            est.append(separator.separate(mixture, rate, windows.segment, windows.overlap).numpy())
            write_sources(est, trial.ests, output_format)
    except SepmlError as error:
        message = str(error)
        raise SepmlError(message if str(trial.mixture) in message else f"{trial.mixture}: {message}") from error
