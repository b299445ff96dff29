"""The section of a report with utterances to listen to: which are chosen, their audio files, their players."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from sepml.errors import SepmlError
from sepml.pages import data_uri, render
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import scan_manifest
from sepml.speech.data.mixtures import AUDIO_SUFFIXES
from sepml.speech.report.contents import ScoreFolder, Test
from sepml.speech.report.rendering import loudest, player, wav
from sepml.speech.results.tables import title
from sepml.speech.scoring.trial import find_estimates
from sepml.system.progress import track

SECONDS = 20.0
"""The page contains the first part of longer recordings."""
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
    """The audio files of the mixtures of one score folder, found through the inputs in its summary."""

    def __init__(self, run: ScoreFolder) -> None:
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
        """An existing path; a relative one starts from this folder or from one above the scores, where `sepml score` ran."""
        if not isinstance(name, str) or not name:
            raise SepmlError("summary.json does not say where the audio is")
        places = [Path(name), *(parent / name for parent in self._folder.parents)]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise SepmlError(f"{name}: no longer exists")
        return place


def listen(tests: Sequence[Test], each: int, seed: int, room: int) -> Markup:
    """The players of a page, for each test in turn; empty text where there are none.

    Args:
        each: utterances to listen to: this many of the best, of the worst and of the others, for each test.
        seed: of the choice of the others.
        room: bytes for all players; those that do not fit are left out, and the page says so.
    """
    if not tests or not each:
        return Markup()
    columns = [_leading(test.runs[0]) for test in tests]
    picks = [choose(test.runs[0], column, each, seed) for test, column in zip(tests, columns, strict=True)]
    waiting = [_players_of(test, of, c, f"u{t}") for t, (test, of, c) in enumerate(zip(tests, picks, columns, strict=True))]
    made: list[dict[str, list[Markup]]] = [{"best": [], "worst": [], "random": []} for _ in tests]
    turns = [(t, of[k].why) for k in range(max(map(len, picks))) for t, of in enumerate(picks) if k < len(of)]
    left_out = 0
    for count, (t, why) in enumerate(track(turns, "players")):
        utterance = next(waiting[t])
        room -= len(utterance.encode())
        if room < 0:
            left_out = len(turns) - count
            break
        made[t][why].append(utterance)
    blocks = []
    for test, column, of_test in zip(tests, columns, made, strict=True):
        most = f" Estimates of the first {RUNS} of {len(test.runs)} score folders." if len(test.runs) > RUNS else ""
        how = f"Chosen by {title(column)} of {test.runs[0].label}.{most}"
        blocks.append({"title": test.title, "how": how, "utterances": [text for of in of_test.values() for text in of]})
    return render("listen.html", each=each, seed=seed, left_out=left_out, blocks=blocks)


def choose(run: ScoreFolder, column: str, each: int, seed: int) -> list[Pick]:
    """The best, worst and random utterances of a run by one metric, `each` of every kind in turn, without repetition."""
    values, ids = run.scores.columns[column], run.scores.ids
    of = [(-value, ids[i], i) for i, value in enumerate(values) if value is not None]
    ranked = [i for _, _, i in sorted(of)]
    best = ranked[:each]
    worst = ranked[each:][::-1][:each]
    others = ranked[each : len(ranked) - len(worst)]
    drawn = np.random.default_rng(seed).permutation(np.array(others, int))[:each].tolist()
    kinds = (("best", best), ("worst", worst), ("random", drawn))
    return [Pick(why, of[turn]) for turn in range(each) for why, of in kinds if turn < len(of)]


def _players_of(test: Test, picks: Sequence[Pick], column: str, anchor: str) -> Iterator[Markup]:
    """The HTML of each utterance in turn: a player, a waveform and a spectrogram for each of its signals."""
    runs = test.runs[:RUNS]
    files: list[AudioFiles | str] = []
    for run in runs:
        try:
            files.append(AudioFiles(run))
        except SepmlError as error:
            files.append(str(error))
    for number, pick in enumerate(picks):
        name = runs[0].scores.ids[pick.index]
        known = [(r, f, r.scores.ids.index(name)) for r, f in zip(runs, files, strict=True) if name in r.scores.ids]
        values = [(r.label, r.scores.columns[column][row]) for r, _, row in known if column in r.scores.columns]
        worth = ", ".join(f"{label} {value:.2f}" for label, value in values if value is not None)
        signals, absent = _signals(name, known)
        rows = [[_player(signal) for signal in row] for row in signals if row]
        of_pick = {"anchor": f"{anchor}-{number}", "name": name, "why": pick.why, "scores": f"{title(column)}: {worth}"}
        yield render("utterance.html", **of_pick, rows=rows, absent=absent)


@dataclass(frozen=True)
class _Signal:
    """A signal to listen to: x (T,), its rate in Hz, and the scale of its pictures, see `rendering.player`."""

    label: str
    x: np.ndarray
    rate: int
    peak: float = 1.0
    level: float | None = None


def _signals(name: str, runs: Sequence[tuple[ScoreFolder, AudioFiles | str, int]]) -> tuple[list[list[_Signal]], list[str]]:
    """The signals of one utterance (a row for the mixture and its sources, and one for each run), and why others are absent."""
    absent = []
    named: list[tuple[int, str, Path]] = []
    for number, (run, files, row) in enumerate(runs, start=1):
        try:
            if isinstance(files, str):
                raise SepmlError(files)
            if not named:
                mixture, *sources = files.references(name)
                named = [(0, "mixture", mixture), *((0, f"source {j + 1}", path) for j, path in enumerate(sources))]
            paths = files.estimates(name, run.scores.permutations[row])
            named += [(number, f"{run.label}: estimate of source {j + 1}", path) for j, path in enumerate(paths)]
        except SepmlError as error:
            absent.append(f"No audio of {run.label}: {error}")
    rows: list[list[_Signal]] = [[] for _ in range(len(runs) + 1)]
    for number, label, path in named:
        try:
            rows[number].append(_Signal(label, *read_wav(path)))
        except SepmlError as error:
            absent.append(f"No audio of {label}: {error}")
    peak = max((float(np.abs(signal.x).max(initial=0)) for signal in rows[0]), default=1.0)
    first = next((signal for row in rows for signal in row), None)
    level = loudest(first.x[: int(SECONDS * first.rate)], first.rate) if first else None
    return [[replace(signal, peak=peak, level=level) for signal in row] for row in rows], absent


def _player(signal: _Signal) -> Markup:
    x, rate, notes = signal.x, signal.rate, []
    if len(x) > SECONDS * rate:
        notes.append(f"first {SECONDS:.0f} s of {len(x) / rate:.0f} s")
        x = x[: int(SECONDS * rate)]
    if not np.isfinite(x).all():
        x, notes = np.nan_to_num(x, nan=0, posinf=0, neginf=0), [*notes, "samples that are no numbers are played as silence"]
    content, factor = wav(x, rate)
    if factor < 1:
        notes.append(f"turned down by {-20 * np.log10(factor):.1f} dB to full scale")
    source = data_uri("audio/wav", content)
    return player(signal.label, x, rate, signal.peak, signal.level, source, "; ".join(notes))


def _with_suffix(folder: Path, stem: str) -> Path:
    paths = [folder / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES]
    return next((path for path in paths if path.is_file()), None) or _present(paths[0])


def _present(path: Path) -> Path:
    if not path.is_file():
        raise SepmlError(f"{path}: no longer exists")
    return path


def _leading(run: ScoreFolder) -> str:
    """The metric that utterances are chosen by."""
    return "si_snri" if "si_snri" in run.scores.columns else next(iter(run.scores.columns))
