"""Mixtures separated and scored: with the network in this process and scores in others, or both in one process."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
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
# Of mixtures that are separated at a time, each of which takes memory.
_MOST_AT_ONCE = 16
_MOST_BYTES = 1 << 27
# Of what models keep; no part of them, as they are sent to other machines.
_memory = threading.Lock()
Todo = Mapping[int, Trial]
"""Of one mixture: the number of each row that has no scores of it yet -> its files."""
Scored = UtteranceScores | Failure[str]
Score = Callable[[Trial], UtteranceScores]
Result = tuple[int, Trial, Scored]
"""The number of a row, the files, and what came of them."""
Separated = tuple[int, Trial, Failure[str] | None]
"""The number of a row, the files, and why they were not written."""


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
        with _memory:
            if (known := self._known.get(key)) is not None:
                return known.clone()
        output = self.model(mixture)
        with _memory:
            # Another thread may have had the same input.
            self._size += output.nbytes * (key not in self._known)
            self._known[key] = output.clone()
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
    """Separate mixtures in this process; other processes score them meanwhile.

    On a CPU as many mixtures are separated at a time, each by one thread, as on workers of a cluster: the threads of one
    operation would wait for each other, and where scoring has taken a core from one of them, for long
    (`tools/bench/evaluate.py`). So the scores depend neither on `jobs` nor on the number of cores.
    """
    separating: set[Future[list[Separated]]] = set()
    scoring: dict[Future[UtteranceScores], tuple[int, Trial]] = {}
    work = partial(_separated, separators=separators, windows=windows)

    def collected(most_separating: int, most_scoring: int) -> Iterator[Result]:
        """Finished results; waits until no more than so many mixtures and rows are pending."""
        while separating or scoring:
            is_full = len(separating) > most_separating or len(scoring) > most_scoring
            pending: list[Future[Any]] = [*separating, *scoring]
            done, _ = wait(pending, None if is_full else 0, FIRST_COMPLETED)
            for future in done:
                if future in scoring:
                    number, trial = scoring.pop(future)
                    yield number, trial, _outcome(trial, future)
                    continue
                separating.remove(future)
                for number, trial, fault in future.result():
                    if fault is None:
                        scoring[pool.submit(score, trial)] = number, trial
                    else:
                        yield number, trial, fault
            if not done:
                return

    on_cpu = _on_cpu(separators)
    at_once = min(jobs, _MOST_AT_ONCE) if on_cpu else 1
    with pool_of(jobs, score) as pool, _threads(at_once, 1 if on_cpu else torch.get_num_threads()) as threads:
        for left in track(todo, "evaluating"):
            separating.add(threads.submit(work, left))
            yield from collected(2 * at_once, _AHEAD * jobs)
        yield from collected(0, 0)


def _separated(left: Todo, separators: Sequence[Separator], windows: Windows) -> list[Separated]:
    """One mixture separated for each row, and what failed."""
    found: list[Separated] = []
    for number, trial in left.items():
        try:
            _separate(trial, separators[number], windows)
            found.append((number, trial, None))
        except SepmlError as error:
            found.append((number, trial, Failure(trial.id, str(error))))
    return found


def _outcome(trial: Trial, future: Future[UtteranceScores]) -> Scored:
    try:
        return future.result()
    except SepmlError as error:
        return Failure(trial.id, str(error))


def _on_cpu(separators: Sequence[Separator]) -> bool:
    weights = (weight for separator in separators for model in separator.models for weight in model.parameters())
    return all(weight.device.type == "cpu" for weight in weights)


@contextmanager
def _threads(count: int, cores_each: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in each of which PyTorch computes with so many cores. On an error what waits for one is not begun."""
    before, pool = torch.get_num_threads(), ThreadPoolExecutor(count)
    torch.set_num_threads(cores_each)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


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
