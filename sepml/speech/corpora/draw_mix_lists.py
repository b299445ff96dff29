"""Random mix lists in the format of wsj0-mix."""

import logging
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.corpora.corpus_folder import STAMP, finish_corpus, read_utterances
from sepml.system.files import write_json, write_text

log = logging.getLogger(__name__)
LISTS = {
    "tr": "train",
    "cv_seen": "seen_valid",
    "cv_unseen": "unseen_valid",
    "tt_seen": "seen_test",
    "tt_unseen": "unseen_test",
}
_SWAPS_A_SLOT = 10
_TRIES = 100


@dataclass(frozen=True)
class ListSizes:
    """The number of mixtures in the training list, in each validation list and in each test list."""

    tr: int = 5000
    cv: int = 200
    tt: int = 200

    def of(self, name: str) -> int:
        """The size of the list `name`, such as `cv_seen`."""
        return {"tr": self.tr, "cv": self.cv, "tt": self.tt}[name.split("_")[0]]


def mix_lists_of(out: Path, seed: int, sizes: ListSizes, tiers: Sequence[str] = ("A", "B"), n_src: int = 2) -> list[Path]:
    """Write `out/lists/mix_<n_src>_spk_{tr,cv_seen,cv_unseen,tt_seen,tt_unseen}.txt` of the corpus in `out`.

    The training list uses all utterances of its split, and the other lists only those of the given tiers, so that scores are
    for clean running speech. Paths are relative to `out`.

    Args:
        out: a folder with `utterances.csv`.

    Raises:
        SepmlError: a split has fewer than `n_src` speakers.
    """
    speakers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for utterance in read_utterances(out / "utterances.csv"):
        if utterance.split == "train" or utterance.tier in tiers:
            speakers[utterance.split][utterance.speaker].append(utterance.file)
    # All lists are drawn before one is written: if a set is too small, the folder does not change.
    texts = {}
    paths = _list_paths(out, n_src)
    for name, split in LISTS.items():
        try:
            lines = draw_mix_list(speakers[split], sizes.of(name), zlib.crc32(f"{seed} {name}".encode()), n_src)
        except SepmlError as error:
            raise SepmlError(f"{out}: the list '{name}' cannot be drawn: {error}") from error
        texts[paths[name]] = "".join(line + "\n" for line in lines)
    for path, text in texts.items():
        write_text(path, text)
    log.info("%s: %s", out / "lists", ", ".join(f"{sizes.of(name)} {name}" for name in LISTS))
    return list(texts)


def finish_with_lists(out: Path, stamp: Mapping[str, Any], seed: int, sizes: ListSizes) -> None:
    """Draw the mix lists of a corpus, unless the same lists exist, and mark the corpus as finished.

    Args:
        stamp: the content of `corpus.json`, or for a new corpus the content to be written.

    Raises:
        SepmlError: a list cannot be drawn.
    """
    drawn = {"seed": seed, **asdict(sizes)}
    if stamp.get("lists") == drawn and all(path.is_file() for path in _list_paths(out, 2).values()):
        return
    if (out / STAMP).is_file():
        # If this run stops before the lists are complete, the next run draws them again.
        write_json(out / STAMP, {**stamp, "lists": None})
    mix_lists_of(out, seed, sizes)
    finish_corpus(out, {**stamp, "lists": drawn})


def draw_mix_list(
    utterances: Mapping[str, Sequence[str]], n_mixtures: int, seed: int, n_src: int = 2, gain_range_db: float = 2.5
) -> list[str]:
    """Draw mixtures of different speakers, in which every utterance is used equally often (+-1) as far as possible.

    Gains follow the published lists: the first is uniform in [0, `gain_range_db`] dB and the second is its negative (a third
    is 0), so the first speaker in a line is louder, by 0 to 5 dB for 2.5. The order of the speakers is random, so the level
    of one relative to the other is uniform within +-5 dB. The same utterances are mixed only once unless there are too few.

    Args:
        utterances: the paths of the utterances of each speaker, with different stems, of which the ids of mixtures consist.

    Returns:
        lines `path gain path gain ` with gains of five significant digits and a trailing space, as in the published lists.

    Raises:
        SepmlError: fewer speakers than `n_src`, a path with white space, a stem that occurs twice, or `n_mixtures` below 1.
    """
    if n_mixtures < 1:
        raise SepmlError(f"{n_mixtures} mixtures were requested, at least 1 is needed")
    speakers = {speaker: list(paths) for speaker, paths in utterances.items() if paths}
    if len(speakers) < n_src:
        raise SepmlError(f"{len(speakers)} speakers with utterances, at least {n_src} are needed")
    _check_paths([path for paths in speakers.values() for path in paths])
    rng = np.random.default_rng(seed)
    mixtures = _shuffled(_arranged(_uses(speakers, n_mixtures, n_src, rng), n_mixtures, n_src, rng), rng)
    lines, ids = [], set()
    for mixture in mixtures:
        for _ in range(_TRIES):
            gains = _gains(n_src, gain_range_db, rng)
            line = "".join(f"{path} {gain} " for (_, path), gain in zip(mixture, gains, strict=True))
            identity = "_".join(f"{Path(path).stem}_{gain}" for (_, path), gain in zip(mixture, gains, strict=True))
            if identity not in ids:
                break
        else:
            raise SepmlError(f"{n_mixtures} mixtures cannot all differ with so few utterances; ask for fewer")
        ids.add(identity)
        lines.append(line)
    return lines


def _list_paths(out: Path, n_src: int) -> dict[str, Path]:
    return {name: out / "lists" / f"mix_{n_src}_spk_{name}.txt" for name in LISTS}


def _check_paths(paths: Sequence[str]) -> None:
    spaced = [path for path in paths if re.search(r"\s", path)]
    if spaced:
        raise SepmlError(f"'{spaced[0]}': white space in a path, which mix lists do not allow; rename the file")
    stem, times = Counter(Path(path).stem for path in paths).most_common(1)[0]
    if times > 1:
        raise SepmlError(f"{times} utterances are called '{stem}'; their names make the mixtures' ids and must differ")


def _uses(speakers: Mapping[str, Sequence[str]], n_mixtures: int, n_src: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """The utterances of each speaker, each as often as it is used; a speaker is used at most once per mixture."""
    uses: dict[str, list[str]] = {}
    free: dict[str, list[str]] = {speaker: [*paths] for speaker, paths in speakers.items()}
    left = n_mixtures * n_src
    while free:
        paths = [(speaker, path) for speaker in free for path in free[speaker]]
        rounds, extra = divmod(left, len(paths))
        chosen = paths * rounds + [paths[i] for i in rng.permutation(len(paths))[:extra]]
        counts = Counter(speaker for speaker, _ in chosen)
        crowded = [speaker for speaker in free if counts[speaker] > n_mixtures]
        if not crowded:
            for speaker, path in chosen:
                uses.setdefault(speaker, []).append(path)
            break
        # A speaker who would be used more often is in every mixture, and the others share the rest.
        for speaker in crowded:
            own = free.pop(speaker)
            rounds, extra = divmod(n_mixtures, len(own))
            uses[speaker] = own * rounds + [own[i] for i in rng.permutation(len(own))[:extra]]
            left -= n_mixtures
    return uses


def _arranged(
    uses: Mapping[str, Sequence[str]], n_mixtures: int, n_src: int, rng: np.random.Generator
) -> list[list[tuple[str, str]]]:
    """Mixtures of different speakers, before they are shuffled.

    With all uses sorted by speaker, mixture j has the numbers j, j + N, j + 2N and so on: the uses of a speaker, N at most,
    are contiguous, so no two of them are in one mixture.
    """
    slots: list[tuple[str, str]] = []
    for i in rng.permutation(len(uses)):
        speaker = list(uses)[i]
        slots += [(speaker, uses[speaker][k]) for k in rng.permutation(len(uses[speaker]))]
    return [slots[j::n_mixtures] for j in range(n_mixtures)]


def _shuffled(mixtures: list[list[tuple[str, str]]], rng: np.random.Generator) -> list[list[tuple[str, str]]]:
    """Shuffle by swaps between mixtures, such that speakers of a mixture remain different and no mixture is repeated."""
    n_mixtures, n_src = len(mixtures), len(mixtures[0]) if mixtures else 0
    met = Counter(frozenset(mixture) for mixture in mixtures)
    steps = _SWAPS_A_SLOT * n_mixtures * n_src
    pairs, places = rng.integers(n_mixtures, size=(steps, 2)).tolist(), rng.integers(n_src, size=(steps, 2)).tolist()
    for (a, b), (i, j) in zip(pairs, places, strict=True):
        old = [mixtures[a], mixtures[b]]
        new = [list(old[0]), list(old[1])]
        new[0][i], new[1][j] = old[1][j], old[0][i]
        if a == b or any(len({speaker for speaker, _ in mixture}) < n_src for mixture in new):
            continue
        before, after = [frozenset(mixture) for mixture in old], [frozenset(mixture) for mixture in new]
        met.subtract(before)
        # The number of repeated mixtures must not grow; with few utterances some cannot be avoided.
        kept = sum(met[pair] for pair in after) <= sum(met[pair] for pair in before)
        met.update(after if kept else before)
        if kept:
            mixtures[a], mixtures[b] = new
    order = rng.permutation(n_mixtures)
    return [[mixtures[k][i] for i in rng.permutation(n_src)] for k in order]


def _gains(n_src: int, gain_range_db: float, rng: np.random.Generator) -> list[str]:
    """The gains as text: pairs of opposite sign, and 0 for the last of an odd number."""
    gains: list[str] = []
    for _ in range(n_src // 2):
        gain = f"{rng.uniform(0, gain_range_db):.5g}"
        gains += [gain, gain if float(gain) == 0 else f"-{gain}"]
    return [*gains, "0"] if n_src % 2 else gains
