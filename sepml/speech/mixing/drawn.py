"""Dynamic mixtures as files: fixed sets with the effects of training, to listen to, to learn from and to test with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sepml.config import parse, read_yaml
from sepml.speech.audio.files import are_whole, quantise, write_wav
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.mixtures import Mixture, mixture_in
from sepml.speech.mixing.mix_parts import claim_part, complete_part, finish_split, share_of
from sepml.system.parallel import WHOLE, Part, all_of, map_unordered, part_of
from sepml.system.stamp import claim_noted, digest_of, file_digest, note_settings

_FULL_SCALE = 0.9


@dataclass(frozen=True)
class DrawnMixtures:
    """Which mixtures are drawn and written.

    Attributes:
        dynamic: where from, how many (`size`), and with which effects.
        n_src: talkers of a mixture.
        segment: length, s.
        sample_rate: Hz.
        seed: of all that is drawn.
    """

    dynamic: DynamicMixing
    n_src: Annotated[int, Field(ge=1, le=64)] = 2
    segment: Annotated[float, Field(gt=0, le=3600)] = 4.0
    sample_rate: Annotated[int, Field(ge=1, le=1_000_000)] = 8000
    seed: Annotated[int, Field(ge=0)] = 0


def write_drawn(files: Sequence[Path], root: Path, out: Path, jobs: int = 0, part: Part = WHOLE) -> list[Path]:
    """Write the mixtures that files of settings describe: `out/<name>/{mix,s1,s2}/00000.wav` and a manifest `out/<name>.csv`.

    A set has the name of its file. References are what each talker adds to the mixture; noise, clipping and codecs are in the
    mixture only. Complete mixtures of an interrupted run are kept.

    Args:
        root: the folder that the paths in the settings are relative to.
        jobs: processes, 0 = all cores. The files do not depend on it.
        part: as of `mix_lists`.

    Returns:
        the manifests; of a part its records.

    Raises:
        SepmlError: settings or utterances cannot be read, or a folder holds something else.
    """
    every = {Path(out) / file.stem: parse(DrawnMixtures, read_yaml(file), str(file)) for file in files}
    return [_write(settings, root, folder, jobs, part) for folder, settings in every.items()]


def _write(settings: DrawnMixtures, root: Path, folder: Path, jobs: int, part: Part) -> Path:
    mixing = settings.dynamic.below(root)
    # Earlier versions had no `talkers`.
    drawn_from = repr(settings).replace("talkers=(), ", "")
    note = {"drawn": digest_of([drawn_from], 16), "utterances": file_digest(mixing.utterances)}
    begun = claim_noted(folder, "mixtures", note) == "resume"
    length = round(settings.segment * settings.sample_rate)
    drawn = DynamicSegments(mixing, settings.n_src, length, settings.sample_rate, settings.seed)
    mixtures = [mixture_in(folder, f"{number:05}", settings.n_src, length) for number in range(len(drawn))]
    share = share_of(part, [mixture.id for mixture in mixtures], sorted(note.items()))
    claim_part(folder, share)
    if not begun:
        note_settings(folder, note)
    mine = part_of(range(len(drawn)), part)
    left = [n for n in mine if not are_whole([mixtures[n].mixture, *mixtures[n].sources], length)]
    all_of(map_unordered(partial(_make, drawn, mixtures), left, jobs, f"drawing {folder.name}", chunk=4))
    if share is not None:
        return complete_part(folder, share, [mixtures[n] for n in mine])
    return finish_split(folder, mixtures)


def _make(drawn: DynamicSegments, mixtures: Sequence[Mixture], number: int) -> None:
    mixture, sources, _ = drawn[0, number]
    # One gain for all, so that nothing is clipped that was not clipped before.
    excess = max(1.0, float(abs(mixture).max()) / _FULL_SCALE, float(abs(sources).max()) / _FULL_SCALE)
    for file, signal in zip([mixtures[number].mixture, *mixtures[number].sources], [mixture, *sources], strict=True):
        write_wav(file, quantise(signal / excess), drawn.sample_rate)
