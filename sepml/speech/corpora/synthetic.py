"""A corpus of synthetic speech with many voices of espeak-ng: `sepml prepare synthetic`."""

import ctypes
import logging
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.corpora import corpus_folder
from sepml.speech.corpora.cleanup import fade, level, to_8k, trim, utterances, write_speaker
from sepml.speech.corpora.corpus_folder import SpeakerRow, UtteranceRow
from sepml.speech.corpora.draw_mix_lists import ListSizes, finish_with_lists
from sepml.system.csv_files import read_rows
from sepml.system.extras import needs_extra
from sepml.system.files import write_text
from sepml.system.parallel import all_of, map_unordered
from sepml.system.temporaries import temporary_folder

log = logging.getLogger(__name__)
_FOLDER = Path(__file__).parent
RULES = 1  # incremented when the same request gives other audio
_VOLUME = 50  # of 100, at which some variants clip
_FEWEST_VOICES = 6
_FEWEST_UTTERANCES = 4
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000  # otherwise a failed start would end the whole process
_UTF8 = 1
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_LICENCE = """The speech in this folder was synthesised by espeak-ng {version}, which is free software under the GNU General
Public License, version 3 or later (https://github.com/espeak-ng/espeak-ng), called through the PyPI package espeakng-loader.
The licence is the program's and its voices'; neither is in this folder. The sentences come with sepml, under its licence.

voices: {voices}
"""


@dataclass(frozen=True)
class Voice:
    """A voice: a variant of espeak-ng, F or M, a language, pitch and its range (0 to 99), words a minute."""

    variant: str
    sex: str
    language: str
    pitch: int
    pitch_range: int
    rate: int

    @property
    def code(self) -> str:
        """Its name in espeak-ng, such as `en-us+f1`."""
        return f"{self.language}+{self.variant}"

    @property
    def name(self) -> str:
        """The speaker's name, such as `f-belinda`."""
        return f"{self.sex.lower()}-{self.variant.lower()}"

    def parameters(self) -> dict[str, int]:
        """Its settings for espeak-ng."""
        return {"rate": self.rate, "pitch": self.pitch, "pitch_range": self.pitch_range, "volume": _VOLUME}


@cache
def voices_of_espeak() -> tuple[Voice, ...]:
    """The voices of `voices.csv`: female and male voices in turn, so that every number of them is balanced.

    They were chosen to differ in timbre (the variant), pitch and accent.
    """
    rows = ([*row.values()] for _, row in read_rows(_FOLDER / "voices.csv", "table of voices"))
    return tuple(Voice(variant, sex, language, *map(int, numbers)) for variant, sex, language, *numbers in rows)


class Espeak(ExitStack):
    """One voice of a private copy of espeak-ng; a context manager.

    The library keeps state between sentences (glottal phase, noise generator), which neither another voice nor a restart
    resets. Each object loads its own copy of the library, so that its speech depends only on what it has said before.

    Args:
        voice: a language and a variant, such as `en+f2`.
        parameters: rate (words a minute), volume, pitch, pitch_range (0 to 99), each optional.

    Raises:
        SepmlError: the library is absent or does not start, or the voice is unknown.
    """

    def __init__(self, voice: str, **parameters: int) -> None:
        with needs_extra("synthetic", "speech synthesis"):
            import espeakng_loader

        super().__init__()
        folder = self.enter_context(temporary_folder("espeak"))
        library = Path(espeakng_loader.get_library_path())
        try:
            shutil.copyfile(library, folder / library.name)
            # espeak-ng truncates the path of its data after 160 characters; a link in a temporary folder is short.
            (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
            self._library = ctypes.CDLL(str(folder / library.name))
        except (OSError, RuntimeError) as error:
            self.close()
            raise SepmlError(f"{library}: espeak-ng cannot be loaded ({error}); install espeakng-loader again") from error
        self.callback(self._library.espeak_Terminate)
        self._chunks: list[np.ndarray] = []
        self._receiver = _CALLBACK(self._receive)
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder).encode(), _DO_NOT_EXIT)
        if self.rate <= 0 or self._library.espeak_SetVoiceByName(voice.encode()):
            found = f"does not know the voice '{voice}'" if self.rate > 0 else "does not start"
            self.close()
            raise SepmlError(f"espeak-ng {found}; install espeakng-loader again")
        self._library.espeak_SetSynthCallback(self._receiver)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        for name, value in parameters.items():
            self._library.espeak_SetParameter(_PARAMETERS[name], value, 0)

    @property
    def version(self) -> str:
        """The version of espeak-ng."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return self._library.espeak_Info(None).decode().split()[0]

    def say(self, text: str) -> np.ndarray:
        """The spoken text in [-1, 1], float64 (T,), at `self.rate` Hz.

        Raises:
            SepmlError: nothing was said.
        """
        self._chunks.clear()
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if status or not self._chunks:
            raise SepmlError(f"espeak-ng said nothing for '{text}' (status {status})")
        return np.concatenate(self._chunks) / 32768

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", n: int, events: int | None) -> int:
        if samples and n > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0


def check_numbers(voices: int, utterances_each: int) -> None:
    """Check the numbers of voices and of utterances per voice.

    Raises:
        SepmlError: one is out of its range.
    """
    if not _FEWEST_VOICES <= voices <= len(voices_of_espeak()):
        raise SepmlError(f"{voices} voices were requested; {_FEWEST_VOICES} to {len(voices_of_espeak())} are available")
    if utterances_each < _FEWEST_UTTERANCES:
        raise SepmlError(f"{utterances_each} utterances per voice were requested; at least {_FEWEST_UTTERANCES} are needed")


def prepare_synthetic(
    out: Path, seed: int = 0, voices: int = 24, utterances_each: int = 60, jobs: int = 0, lists: ListSizes | None = None
) -> None:
    """Make a corpus of synthetic speech at 8 kHz, in the same format as the recorded one.

    It writes `out/<speaker>/<speaker>-NNNN.wav`, `utterances.csv`, `speakers.csv`, `LICENSES/` and `lists/`. One sixth of the
    voices is `unseen_valid` and another `unseen_test`; of the utterances of every other voice, one twentieth is `seen_valid`
    and another `seen_test`. The same seed gives the same bytes, with any number of jobs. The same command resumes an
    interrupted run.

    Args:
        seed: of the sentences and the mix lists.
        voices: number of speakers, 6 to 30.
        utterances_each: number of utterances per voice, 4 or more, each of 3 to about 7 s.
        jobs: processes; 0 = all cores.
        lists: number of mixtures in the lists; by default 5000, 200, 200 (training, validation, test).

    Raises:
        SepmlError: the synthesiser is not installed, `out` holds something else, a number is out of range, or the disk is full.
    """
    check_numbers(voices, utterances_each)
    out = Path(out)
    request: dict[str, Any] = {"kind": "synthetic", "rules": RULES, "seed": seed, "voices": voices}
    request["utterances"] = utterances_each
    stamp = corpus_folder.claim_corpus(out, request)
    if stamp is None:
        with Espeak("en") as espeak:
            version = espeak.version
        corpus_folder.begin_corpus(out, request)
        _make(out, request, version, jobs)
        stamp = {"corpus": request, "packages": {"espeak-ng": version}}
    finish_with_lists(out, stamp, seed, lists or ListSizes())
    log.info("%s: the synthetic corpus is complete, %d voices", out, voices)


def _make(out: Path, request: Mapping[str, Any], version: str, jobs: int) -> None:
    """Write audio, tables and licence."""
    voices = voices_of_espeak()[: request["voices"]]
    work = partial(_build_voice, out, request, version)
    built = all_of(map_unordered(work, range(len(voices)), jobs, "synthesis"))
    corpus_folder.write_speakers(out, built, [voice.name for voice in voices])
    names = ", ".join(f"{voice.name} ({voice.code})" for voice in voices)
    write_text(out / "LICENSES" / "README.txt", _LICENCE.format(version=version, voices=names))


def _build_voice(out: Path, request: Mapping[str, Any], version: str, number: int) -> tuple[SpeakerRow, list[UtteranceRow]]:
    """Write the utterances of one voice, and return the rows of the tables."""
    voice = voices_of_espeak()[number]
    origin, count, use = {"espeak-ng": version}, request["utterances"], _use(number, request["voices"])
    if done := corpus_folder.load_speaker(out, voice.name, origin):
        return done
    note = f"pitch {voice.pitch}, range {voice.pitch_range}, {voice.rate} words a minute"
    row = SpeakerRow(voice.name, voice.sex, "A", voice.language, f"espeak-ng {version}", use, groups=voice.code, note=note)
    with Espeak(voice.code, **voice.parameters()) as espeak:
        sentences = _sentences(espeak, np.random.default_rng([request["seed"], zlib.crc32(voice.name.encode())]))
        return write_speaker(out, row, origin, islice(utterances(voice.name, sentences), count), partial(_split, use, count))


def _use(number: int, voices: int) -> str:
    """The set of a voice: the last sixth (at least two) is for test, the sixth before it for validation."""
    unseen = max(2, voices // 6)
    return "test" if number >= voices - unseen else "valid" if number >= voices - 2 * unseen else "train"


def _split(use: str, count: int, index: int) -> str:
    """The split of an utterance; of a training voice, the last twentieth is for test and that before it for validation."""
    if use != "train":
        return f"unseen_{use}"
    held = max(1, count // 20)
    return "seen_test" if index >= count - held else "seen_valid" if index >= count - 2 * held else "train"


@cache
def _texts() -> list[str]:
    text = (_FOLDER / "sentences.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _sentences(espeak: Espeak, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """An endless sequence of spoken sentences at 8 kHz, with names; none is repeated before all have been spoken."""
    while True:
        for i in rng.permutation(len(_texts())):
            x = to_8k(espeak.say(_texts()[i]), espeak.rate)
            yield f"sentence:{i + 1}", fade(level(trim(x)))
