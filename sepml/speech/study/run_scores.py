"""The scores of one run of a study: SI-SNRi of each peer and of their average, and how far the peers' errors are alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.averaging import error_correlation
from sepml.speech.data.loaders import Batch
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.segments import read_example
from sepml.speech.losses import best_permutation, pairwise_quality, reorder
from sepml.speech.models.load import find_model
from sepml.speech.scoring.resume import ENSEMBLE
from sepml.speech.scoring.separated import every_peer_and_their_average
from sepml.speech.separation.separator import Separator
from sepml.speech.task import SeparationTask
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv

AVERAGE, PEERS, CORRELATION = "average", "peers", "error_correlation"
_KEYS = ("test", "mixture", "speakers")


@dataclass(frozen=True)
class RunScores:
    """The scores of a run on a test, M mixtures.

    Attributes:
        mixtures: their ids. speakers: who talks in each, such as `f-june+m-carlo`, empty where that is not known.
        columns: `peer1`, ..., `average`: SI-SNRi, dB, `(M,)`; `error_correlation`: see `error_correlation`, nan for one peer.
    """

    mixtures: tuple[str, ...]
    speakers: tuple[str, ...]
    columns: dict[str, np.ndarray]

    def of(self, what: str) -> np.ndarray:
        """The scores of a column, such as the `average` or `peer1`, or the mean over the `peers`, `(M,)`.

        Raises:
            SepmlError: there is no such peer.
        """
        if what == PEERS:
            return np.mean([values for name, values in self.columns.items() if name.startswith("peer")], axis=0)
        if what not in self.columns:
            raise SepmlError(f"there are no scores of '{what}', expected {PEERS} or one of {', '.join(self.columns)}")
        return self.columns[what]


def score_run(exp: Path, tests: Mapping[str, Path], device: str, speakers: Mapping[str, str]) -> dict[str, RunScores]:
    """Separate the mixtures of tests, whole, by each peer of an experiment and by their average.

    Args:
        tests: name -> manifest. speakers: utterance (the stem of its file) -> its speaker, where that is known.

    Returns:
        name of the test -> its scores.

    Raises:
        SepmlError: the experiment or a manifest cannot be read, or they do not fit.
    """
    origin = find_model(exp, ensemble=True)
    separators = every_peer_and_their_average(Separator.load(origin, device=device), origin)
    return {test: _scored(separators, manifest, speakers) for test, manifest in tests.items()}


def _scored(separators: Mapping[str, Separator], manifest: Path, speakers: Mapping[str, str]) -> RunScores:
    names = [*(AVERAGE if label == ENSEMBLE else label for label in separators), CORRELATION]
    mixtures, task, rate = read_manifest(manifest), SeparationTask(), separators[ENSEMBLE].sample_rate
    rows = []
    for mixture in mixtures:
        example = read_example(mixture, rate)
        batch = Batch(torch.from_numpy(example.mixture)[None], torch.from_numpy(example.sources)[None], (example.id,))
        ests = {label: separator.separate(example.mixture, rate)[None] for label, separator in separators.items()}
        if (n_est := ests[ENSEMBLE].shape[1]) != (n_src := batch.sources.shape[1]):
            raise SepmlError(f"{manifest}: its mixtures have {n_src} sources, the models separate {n_est}")
        peers = [_in_order_of(est, batch) for label, est in ests.items() if label != ENSEMBLE]
        gains = [float(task.score(est, batch)) for est in ests.values()]
        rows.append([*gains, error_correlation(peers, batch.sources)])
    columns = dict(zip(names, np.array(rows).T, strict=True))
    ids = tuple(mixture.id for mixture in mixtures)
    return RunScores(ids, tuple(_speakers_of(id, speakers) for id in ids), columns)


def _speakers_of(id: str, speakers: Mapping[str, str]) -> str:
    """The speakers of a mixture whose id names its utterances, as in wsj0-mix: `<utterance>_<gain>_<utterance>_<gain>`."""
    found = [speakers[part] for part in id.split("_")[::2] if part in speakers]
    return "+".join(sorted(found)) if len(found) == len(id.split("_")[::2]) else ""


def _in_order_of(est_sources: Tensor, batch: Batch) -> Tensor:
    """Estimates `(B, n_src, T)` in the order of the references."""
    return reorder(est_sources, best_permutation(pairwise_quality(est_sources, batch.sources, batch.mixture))[1])


def write_run_scores(path: Path, scores: Mapping[str, RunScores]) -> None:
    """Write the scores of a run as one table, a row a test and mixture."""
    columns = list(next(iter(scores.values())).columns)
    write_csv(path, [*_KEYS, *columns], _rows(scores, columns))


def _rows(scores: Mapping[str, RunScores], columns: Sequence[str]) -> Iterator[list[str]]:
    for test, of in scores.items():
        for n, names in enumerate(zip(of.mixtures, of.speakers, strict=True)):
            yield [test, *names, *(f"{of.columns[column][n]:.4f}" for column in columns)]


def read_run_scores(path: Path) -> dict[str, RunScores]:
    """The scores that `write_run_scores` has written.

    Raises:
        SepmlError: it is no such table.
    """
    tables: dict[str, list[dict[str, str]]] = {}
    for line, row in read_rows(path, "scores of a run", (*_KEYS, AVERAGE, CORRELATION)):
        try:
            for name, value in row.items():
                if name not in _KEYS:
                    float(value)
        except (TypeError, ValueError) as error:
            raise SepmlError(f"{path}:{line}: {error}, expected a number") from error
        tables.setdefault(row["test"], []).append(row)
    return {test: _scores_from(rows) for test, rows in tables.items()}


def _scores_from(rows: Sequence[Mapping[str, str]]) -> RunScores:
    names = [name for name in rows[0] if name not in _KEYS]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
    return RunScores(tuple(row["mixture"] for row in rows), tuple(row["speakers"] for row in rows), columns)
