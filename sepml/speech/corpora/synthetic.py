"""Synthetic speech of many voices, wherever Python runs: `sepml prepare synthetic`."""

import logging
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.corpora.cleanup import fade, level, to_8k, trim, utterances, write_speaker
from sepml.speech.corpora.corpus_folder import (
    SpeakerRow,
    UtteranceRow,
    begin_corpus,
    claim_corpus,
    load_speaker,
    write_speakers,
)
from sepml.speech.corpora.draw_mix_lists import ListSizes, finish_with_lists
from sepml.speech.corpora.espeak import Espeak
from sepml.system.files import write_text
from sepml.system.parallel import all_of, map_unordered

log = logging.getLogger(__name__)
RULES = 1  # counts up when the same request gives other audio
_VOLUME = 50  # of 100: some variants clip at the full one
_FEWEST_VOICES = 6
_FEWEST_UTTERANCES = 4
_LICENCE = """The speech in this folder was synthesised by espeak-ng {version}, which is free software under the GNU General
Public License, version 3 or later (https://github.com/espeak-ng/espeak-ng), called through the PyPI package espeakng-loader.
The licence is the program's and its voices'; neither is in this folder. The sentences come with sepml, under its licence.

voices: {voices}
"""


@dataclass(frozen=True)
class Voice:
    """A voice: a language and a variant of espeak-ng, pitch and its range (0 to 99), words a minute."""

    variant: str
    language: str
    pitch: int
    pitch_range: int
    rate: int

    @property
    def sex(self) -> str:
        """F or M."""
        return "F" if self.variant in _FEMALE else "M"

    @property
    def name(self) -> str:
        """The speaker's name, such as `f-belinda`."""
        return f"{self.sex.lower()}-{self.variant.lower()}"

    def parameters(self) -> dict[str, int]:
        """What espeak-ng is set to."""
        return {"rate": self.rate, "pitch": self.pitch, "pitch_range": self.pitch_range, "volume": _VOLUME}


_FEMALE = [
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "Alicia",
    "Andrea",
    "Annie",
    "aunty",
    "belinda",
    "grandma",
    "linda",
    "shelby",
    "steph",
    "anika",
]

# Women and men in turn, so that any number of them is balanced; chosen to differ in timbre (the variant), pitch and accent.
VOICES = (
    Voice("f1", "en-us", 45, 50, 165),
    Voice("m1", "en-us", 40, 50, 160),
    Voice("Annie", "en-gb-x-rp", 50, 55, 170),
    Voice("Denis", "en-gb-x-rp", 50, 60, 155),
    Voice("f2", "en-gb-scotland", 40, 60, 160),
    Voice("m3", "en-gb-scotland", 60, 50, 170),
    Voice("belinda", "en-us-nyc", 45, 65, 175),
    Voice("m8", "en", 45, 55, 150),
    Voice("f3", "en-029", 55, 60, 160),
    Voice("Lee", "en-us", 55, 65, 165),
    Voice("Andrea", "en", 40, 60, 145),
    Voice("john", "en-gb-x-gbclan", 50, 45, 165),
    Voice("f4", "en-gb-x-gbcwmd", 35, 45, 155),
    Voice("m4", "en-029", 35, 60, 165),
    Voice("grandma", "en-us", 50, 50, 150),
    Voice("Diogo", "en-us-nyc", 60, 50, 165),
    Voice("f5", "en", 48, 55, 170),
    Voice("pablo", "en-gb-x-gbcwmd", 55, 60, 160),
    Voice("shelby", "en-gb-x-gbclan", 50, 50, 165),
    Voice("Gene", "en-gb-x-rp", 40, 55, 155),
    Voice("steph", "en-us-nyc", 45, 70, 160),
    Voice("m7", "en-us", 65, 55, 170),
    Voice("aunty", "en", 48, 60, 155),
    Voice("m5", "en-gb-scotland", 50, 70, 150),
    Voice("Alicia", "en-029", 55, 50, 175),
    Voice("Alex", "en-us-nyc", 45, 40, 165),
    Voice("linda", "en-gb-x-rp", 50, 60, 155),
    Voice("david", "en-gb-x-gbclan", 50, 55, 160),
    Voice("anika", "en-gb-scotland", 55, 50, 140),
    Voice("edward", "en-029", 60, 55, 155),
)


def check_numbers(voices: int, utterances_each: int) -> None:
    """Refuse numbers of voices, and of utterances each, of which no corpus can be made.

    Raises:
        SepmlError: one is out of its range.
    """
    if not _FEWEST_VOICES <= voices <= len(VOICES):
        raise SepmlError(f"{voices} voices asked for; {_FEWEST_VOICES} to {len(VOICES)} can be had")
    if utterances_each < _FEWEST_UTTERANCES:
        raise SepmlError(f"{utterances_each} utterances a voice asked for; at least {_FEWEST_UTTERANCES} are needed")


def prepare_synthetic(
    out: Path, seed: int = 0, voices: int = 24, utterances_each: int = 60, jobs: int = 0, lists: ListSizes | None = None
) -> None:
    """Make a corpus of synthetic speech at 8 kHz, in the same format as the recorded one.

    `out/<speaker>/<speaker>-NNNN.wav`, `utterances.csv`, `speakers.csv`, `LICENSES/` and `lists/`. A sixth of the voices is
    kept for `unseen_valid` and another for `unseen_test`; of each other voice a twentieth of the utterances is `seen_valid`
    and another `seen_test`. The same seed gives the same bytes, with any number of jobs. A stopped run is finished by the
    same command.

    Args:
        seed: of the sentences and the mix lists.
        voices: speakers, 6 to 30.
        utterances_each: utterances of 3 to about 7 s a voice, 4 or more.
        jobs: processes; 0 = all cores.
        lists: mixtures a list; 5000, 200, 200 (training, validation, test) by default.

    Raises:
        SepmlError: the synthesiser is not installed, `out` holds something else, a number is out of range, the disk is full.
    """
    check_numbers(voices, utterances_each)
    out = Path(out)
    request: dict[str, Any] = {
        "kind": "synthetic",
        "rules": RULES,
        "seed": seed,
        "voices": voices,
        "utterances": utterances_each,
    }
    stamp = claim_corpus(out, request)
    if stamp is None:
        with Espeak("en") as espeak:
            version = espeak.version
        begin_corpus(out, request)
        _make(out, request, version, jobs)
        stamp = {"corpus": request, "packages": {"espeak-ng": version}}
    finish_with_lists(out, stamp, seed, lists or ListSizes())
    log.info("%s: the synthetic corpus is complete, %d voices", out, voices)


def _make(out: Path, request: Mapping[str, Any], version: str, jobs: int) -> None:
    """Write audio, tables and licence."""
    voices = VOICES[: request["voices"]]
    work = partial(_build_voice, out, request, version)
    built = all_of(map_unordered(work, range(len(voices)), jobs, "synthesis"))
    write_speakers(out, built, [voice.name for voice in voices])
    names = ", ".join(f"{voice.name} ({voice.language}+{voice.variant})" for voice in voices)
    write_text(out / "LICENSES" / "README.txt", _LICENCE.format(version=version, voices=names))


def _build_voice(out: Path, request: Mapping[str, Any], version: str, number: int) -> tuple[SpeakerRow, list[UtteranceRow]]:
    """Write one voice's utterances; gives their rows in the tables."""
    voice = VOICES[number]
    origin, count, use = {"espeak-ng": version}, request["utterances"], _use(number, request["voices"])
    if done := load_speaker(out, voice.name, origin):
        return done
    row = SpeakerRow(
        speaker=voice.name,
        sex=voice.sex,
        tier="A",
        language=voice.language,
        who=f"espeak-ng {version}",
        set=use,
        groups=f"{voice.language}+{voice.variant}",
        note=f"pitch {voice.pitch}, range {voice.pitch_range}, {voice.rate} words a minute",
    )
    with Espeak(f"{voice.language}+{voice.variant}", **voice.parameters()) as espeak:
        sentences = _sentences(espeak, np.random.default_rng([request["seed"], zlib.crc32(voice.name.encode())]))
        return write_speaker(out, row, origin, islice(utterances(voice.name, sentences), count), partial(_split, use, count))


def _use(number: int, voices: int) -> str:
    """The set of a voice: the last sixth, at least two, is for test, the sixth before it for validation."""
    unseen = max(2, voices // 6)
    return "test" if number >= voices - unseen else "valid" if number >= voices - 2 * unseen else "train"


def _split(use: str, count: int, index: int) -> str:
    """The split of an utterance; of a training voice the last twentieth, at least one, is for test, and so on."""
    if use != "train":
        return f"unseen_{use}"
    held = max(1, count // 20)
    return "seen_test" if index >= count - held else "seen_valid" if index >= count - 2 * held else "train"


@lru_cache(maxsize=1)
def _texts() -> list[str]:
    text = resources.files(__package__).joinpath("sentences.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _sentences(espeak: Espeak, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Spoken sentences at 8 kHz without end, named by their number; none comes again before all have been said."""
    while True:
        for i in rng.permutation(len(_texts())):
            x = to_8k(espeak.say(_texts()[i]), espeak.rate)
            yield f"sentence:{i + 1}", fade(level(trim(x)))
