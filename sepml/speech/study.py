"""Separation as the task of a study: SI-SNRi of each peer and of their average, and how far the peers' errors are alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.averaging import error_correlation
from sepml.speech.data.loaders import Batch
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.segments import read_example
from sepml.speech.experiment import SeparationExperiment, parse_experiment, train
from sepml.speech.losses import best_permutation, pairwise_quality, reorder
from sepml.speech.models.load import find_model
from sepml.speech.scoring.resume import ENSEMBLE
from sepml.speech.scoring.separated import every_peer_and_their_average
from sepml.speech.separation.separator import Separator
from sepml.speech.task import SeparationTask
from sepml.study.scores import AVERAGE, CORRELATION, RunScores
from sepml.study.task import Measure, Wording
from sepml.system.csv_files import read_rows
from sepml.training.experiment import Machines

MIXTURES = ("mixture", "speakers")
"""The columns that name examples and groups in a file of scores."""
_CURVES = {
    "valid_": "validation, SI-SNRi dB",
    "gate_open": "gate open, fraction",
    "threshold": "threshold, dB",
    "taught_confidence": "SI-SNR of teachers where they teach, dB",
    "withheld_confidence": "SI-SNR of teachers where they do not, dB",
    "mimic_share": "mimic loss's part of the gradient",
}


class SeparationStudy:
    """Studies in separation; a test is a manifest, relative to `data.root`. See `sepml.study.task.StudyTask`."""

    wording = Wording("SI-SNRi of whole mixtures", "speakers' mixtures", MIXTURES, _CURVES)

    def parse(self, settings: dict[str, Any], source: str) -> SeparationExperiment:
        """An experiment from its settings, see `parse_experiment`."""
        return parse_experiment(settings, source)

    def restore(self, settings: dict[str, Any], source: str) -> SeparationExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(SeparationExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """SI-SNRi: every test is a manifest."""
        return Measure("SI-SNRi", "dB", "mixture", "mixtures")

    def lists(self, experiment: SeparationExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """The lists of a run's data and the manifests of the tests, those that are there.

        Raises:
            SepmlError: there is no such manifest.
        """
        data = experiment.data
        lists = {"data.valid": data.valid, "data.train": data.train}
        drawn = {"data.dynamic": data.dynamic, "data.valid_dynamic": data.valid_dynamic}
        if data.unlabelled:
            lists["data.unlabelled"] = data.unlabelled.manifest
            drawn["data.unlabelled.dynamic"] = data.unlabelled.dynamic
        lists |= {name: dynamic.utterances if dynamic else None for name, dynamic in drawn.items()}
        files = {name: data.root / file for name, file in lists.items() if file is not None}
        manifests = {name: data.root / manifest for name, manifest in tests.items()}
        if absent := [file for file in manifests.values() if not file.is_file()]:
            raise SepmlError(f"{absent[0]}: no such manifest, which {source} names under tests")
        return {name: file for name, file in (files | manifests).items() if file.is_file()}

    def score(self, exp: Path, experiment: SeparationExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """The scores of a trained experiment, see `score_run`."""
        manifests = {name: experiment.data.root / manifest for name, manifest in tests.items()}
        return score_run(exp, manifests, device, _speakers(experiment))


def score_run(exp: Path, tests: Mapping[str, Path], device: str, speakers: Mapping[str, str]) -> dict[str, RunScores]:
    """Separate the mixtures of tests, whole, by each peer of an experiment and by their average.

    Args:
        tests: name -> manifest. speakers: utterance (the stem of its file) -> its speaker, where that is known.

    Returns:
        name of the test -> its scores: SI-SNRi, dB, and `error_correlation`, see there, nan for one peer.

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


def _speakers(experiment: SeparationExperiment) -> dict[str, str]:
    """Utterance -> speaker, by the table of utterances that is mixed from; empty without one."""
    data = experiment.data
    if data.dynamic is None:
        return {}
    table = data.root / data.dynamic.utterances
    rows = (row for _, row in read_rows(table, "a table of utterances", ("file", "speaker")))
    return {Path(row["file"]).stem: row["speaker"] for row in rows}


def _speakers_of(id: str, speakers: Mapping[str, str]) -> str:
    """The speakers of a mixture whose id names its utterances, as in wsj0-mix: `<utterance>_<gain>_<utterance>_<gain>`."""
    found = [speakers[part] for part in id.split("_")[::2] if part in speakers]
    return "+".join(sorted(found)) if len(found) == len(id.split("_")[::2]) else ""


def _in_order_of(est_sources: Tensor, batch: Batch) -> Tensor:
    """Estimates `(B, n_src, T)` in the order of the references."""
    return reorder(est_sources, best_permutation(pairwise_quality(est_sources, batch.sources, batch.mixture))[1])
