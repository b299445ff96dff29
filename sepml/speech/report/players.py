"""Utterances to listen to in a report: which ones, where their audio is, and how they are shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import scan_manifest
from sepml.speech.data.mixtures import AUDIO_SUFFIXES
from sepml.speech.report import spectrograms
from sepml.speech.report.rendering import player
from sepml.speech.report.scores import Scores, Test, title
from sepml.speech.scoring.estimates import find_estimates

SECONDS = 20.0
"""Of a longer recording the page has the beginning."""
RUNS = 3
"""Score folders whose estimates of an utterance are shown."""


@dataclass(frozen=True)
class Pick:
    """An utterance to be shown.

    Attributes:
        why: best, worst or random.
        index: its row in the first run of the test.
    """

    why: str
    index: int


class AudioFiles:
    """The files of the mixtures of one score folder, as far as what was scored says where they are."""

    def __init__(self, run: Scores) -> None:
        self._folder = run.folder.resolve()
        inputs = run.inputs
        self._est = self._found(inputs.get("est"))
        self._ests = find_estimates(self._est)
        self._manifest = {}
        if "manifest" in inputs:
            manifest = self._found(inputs["manifest"])
            self._manifest = {m.id: (m.mixture, *m.sources) for m in scan_manifest(manifest)[0].values()}
            return
        refs = inputs.get("ref") or []
        refs = refs.split(" ") if isinstance(refs, str) else refs
        self._references = [self._found(part) for part in (inputs.get("mix"), *refs)]

    def references(self, name: str) -> list[Path]:
        """The mixture and its sources.

        Raises:
            SepmlError: a file is absent.
        """
        if self._manifest:
            if name not in self._manifest:
                raise SepmlError(f"{name}: is not in the manifest any more")
            return [_present(path) for path in self._manifest[name]]
        return [_with_suffix(folder, name) for folder in self._references]

    def estimates(self, name: str, permutation: Sequence[int]) -> list[Path]:
        """The estimates in the order of the sources.

        Raises:
            SepmlError: a file is absent.
        """
        there = self._ests.get(name, {})
        return [there[n] if n in there else _with_suffix(self._est, f"{name}_s{n}") for n in permutation]

    def _found(self, name: object) -> Path:
        """A path that was given in the folder where `sepml score` ran, which is here or above the scores."""
        if not isinstance(name, str) or not name:
            raise SepmlError("summary.json does not say where the audio is")
        places = [Path(name), *(parent / name for parent in self._folder.parents)]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise SepmlError(f"{name}: is not there any more")
        return place


def choose(run: Scores, column: str, each: int, seed: int) -> list[Pick]:
    """The best, the worst and random utterances of a run by one metric, `each` of a kind, none twice; in turns."""
    values = run.columns[column]
    ranked = sorted((i for i, value in enumerate(values) if value is not None), key=lambda i: (-values[i], run.ids[i]))
    best = ranked[:each]
    worst = ranked[each:][::-1][:each]
    others = ranked[each : len(ranked) - len(worst)]
    drawn = np.random.default_rng(seed).permutation(np.array(others, int))[:each].tolist()
    kinds = (("best", best), ("worst", worst), ("random", drawn))
    return [Pick(why, of[turn]) for turn in range(each) for why, of in kinds if turn < len(of)]


def shown(test: Test, picks: Sequence[Pick], column: str, anchor: str) -> Iterator[str]:
    """The HTML of each utterance in turn: a player, a waveform and a spectrogram for each of its signals."""
    runs = test.runs[:RUNS]
    files: list[AudioFiles | str] = []
    for run in runs:
        try:
            files.append(AudioFiles(run))
        except SepmlError as error:
            files.append(str(error))
    for number, pick in enumerate(picks):
        name = test.runs[0].ids[pick.index]
        rows = [run.ids.index(name) if name in run.ids else None for run in runs]
        known = [(run, row) for run, row in zip(runs, rows, strict=True) if row is not None and column in run.columns]
        values = [(run.label, run.columns[column][row]) for run, row in known]
        worth = ", ".join(f"{escape(label)} {value:.2f}" for label, value in values if value is not None)
        signals = _signals(name, [(r, f, row) for r, f, row in zip(runs, files, rows, strict=True) if row is not None])
        yield (
            f'<details class="utterance" id="{anchor}-{number}" data-id="{escape(name)}"><summary><span class="why {pick.why}">'
            f"{pick.why}</span> <code>{escape(name)}</code> <small>{escape(title(column))}: {worth}</small></summary>"
            f"{signals}</details>"
        )


def _signals(name: str, runs: Sequence[tuple[Scores, AudioFiles | str, int]]) -> str:
    """The players of one utterance, or why there are none: a row for the mixture and its sources, one a run."""
    absent = []
    named: list[tuple[int, str, Path]] = []
    for number, (run, files, row) in enumerate(runs, start=1):
        try:
            if isinstance(files, str):
                raise SepmlError(files)
            if not named:
                mixture, *sources = files.references(name)
                named = [(0, "mixture", mixture), *((0, f"source {j + 1}", path) for j, path in enumerate(sources))]
            paths = files.estimates(name, run.permutations[row])
            named += [(number, f"{run.label}: estimate of source {j + 1}", path) for j, path in enumerate(paths)]
        except SepmlError as error:
            absent.append(f'<p class="absent">No audio of {escape(run.label)}: {escape(str(error))}</p>')
    read = []
    for number, label, path in named:
        try:
            read.append((number, label, *read_wav(path)))
        except SepmlError as error:
            absent.append(f'<p class="absent">No audio of {escape(label)}: {escape(str(error))}</p>')
    peak = max((float(np.abs(x).max(initial=0)) for number, _, x, _ in read if number == 0), default=1.0)
    level = next((spectrograms.loudest(x[: int(SECONDS * rate)], rate) for _, _, x, rate in read), None)
    rows = [[_player(*signal, peak, level) for of, *signal in read if of == number] for number in range(len(runs) + 1)]
    return "".join(f'<div class="signals">{"".join(row)}</div>' for row in rows if row) + "".join(absent)


def _player(label: str, x: np.ndarray, rate: int, peak: float, level: float | None) -> str:
    notes = []
    if len(x) > SECONDS * rate:
        notes.append(f"first {SECONDS:.0f} s of {len(x) / rate:.0f} s")
        x = x[: int(SECONDS * rate)]
    if not np.isfinite(x).all():
        x, notes = np.nan_to_num(x, nan=0, posinf=0, neginf=0), [*notes, "samples that are no numbers are played as silence"]
    content, factor = spectrograms.wav(x, rate)
    if factor < 1:
        notes.append(f"turned down by {-20 * np.log10(factor):.1f} dB to full scale")
    return player(label, x, rate, peak, level, spectrograms.data_uri("audio/wav", content), "; ".join(notes))


def _with_suffix(folder: Path, stem: str) -> Path:
    paths = [folder / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES]
    return next((path for path in paths if path.is_file()), None) or _present(paths[0])


def _present(path: Path) -> Path:
    if not path.is_file():
        raise SepmlError(f"{path}: is not there any more")
    return path
