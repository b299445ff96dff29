"""The WSJ0 corpus from the discs of the LDC: `sepml prepare wsj0`."""

import filecmp
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio.files import are_whole, write_wav
from sepml.speech.audio.sphere import SphereHeader, checksum_fits, read_header, read_samples, require_decoder
from sepml.speech.corpora.recordings import walk
from sepml.speech.mixing.mixlist import read_levels, read_mix_list
from sepml.system.files import write_text
from sepml.system.parallel import map_unordered, sorted_out

log = logging.getLogger(__name__)
SAMPLE_RATE = 16000
# Numbers of utterances and speakers in the folders from which wsj0-2mix and wsj0-3mix are made, as in the published tables of
# active levels. Training and validation mixtures are made from si_tr_s, test mixtures from the other two.
UTTERANCES = {"si_tr_s": 12_776, "si_dt_05": 1_206, "si_et_05": 651}
SPEAKERS = {"si_tr_s": 101, "si_dt_05": 10, "si_et_05": 8}
_SHOWN = 5
_LINES = 100
# Discs that were copied without Rock Ridge have the version of each file after its name.
_NAME = re.compile(r"([0-9a-z]{8})\.(wv[12])(;1)?")
_SPLIT = re.compile(r"s[id]_[a-z0-9_]+")
_LICENCE = """\
The speech in this folder is of the corpus CSR-I (WSJ0) Complete, LDC93S6A (Linguistic Data Consortium,
https://catalog.ldc.upenn.edu/LDC93S6A), decoded from your own copy: channel 1 (.wv1, the Sennheiser microphone),
16 kHz, 16 bits, sample for sample as on the discs.

It remains under your LDC user agreement: it must not be passed on, nor must the mixtures made of it.
"""


@dataclass(frozen=True)
class Source:
    """An utterance on the discs: its name, such as `011c0201`; the folder of its split, such as `si_tr_s`; its file."""

    name: str
    split: str
    file: Path

    @property
    def target(self) -> Path:
        """Its path in the corpus, as mix lists expect it."""
        return Path("wsj0") / self.split / self.name[:3] / f"{self.name}.wav"


def prepare_wsj0(ldc: Sequence[Path], out: Path, jobs: int = 0, names: Sequence[Path] = ()) -> None:
    """Decode the utterances that wsj0-mix needs: `out/wsj0/<split>/<speaker>/<utterance>.wav`, 16 kHz, 16 bits.

    Files are written atomically and existing ones are kept, so the same command resumes an interrupted run. Files that cannot
    be decoded are logged, one line for each of the first 100, and the others are decoded nevertheless.

    Args:
        ldc: folders with the discs of LDC93S6A, in any layout and in upper or lower case.
        jobs: processes; 0 = all cores.
        names: published mix lists and tables of active levels, or folders of them; with these, messages name the utterances
            that the discs lack.

    Raises:
        SepmlError: there are no such discs, files are damaged, or utterances are missing; all others are decoded.
    """
    out = Path(out)
    named = expected_names(names)
    sources, faults = find_utterances([Path(folder) for folder in ldc])
    headers, bad = _headers(sources, jobs)
    faults += bad
    if any(header.coding == "shorten" for header in headers.values()):
        require_decoder()
    write_text(out / "wsj0" / "LICENSE.txt", _LICENCE)
    good = [(source, headers[source.file]) for source in sources if source.file in headers]
    written, failures = sorted_out(map_unordered(partial(_decode, out=out), good, jobs, "decoding WSJ0"))
    faults += [failure.message for failure in failures]
    for line in sorted(result.warning for result in written if result.warning):
        log.warning("%s", line)
    for line in sorted(faults)[:_LINES]:
        log.error("%s", line)
    if len(faults) > _LINES:
        log.error("... and %d more files", len(faults) - _LINES)
    made = sum(result.made for result in written)
    log.info("%s: %d utterances were decoded, %d were there already", out / "wsj0", made, len(written) - made)
    missing = [line for split in UTTERANCES for line in _missing(out, split, named.get(split, set()))]
    if faults or missing:
        damaged = [f"{len(faults)} files cannot be used, the first: {min(faults)}"] if faults else []
        raise SepmlError(f"{out / 'wsj0'}: is not complete: {'; '.join([*damaged, *missing])}")


def find_utterances(folders: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """The first-channel (.wv1) utterances of the splits below the folders, sorted by name, and the faults.

    Raises:
        SepmlError: a folder is missing, or there are no such utterances.
    """
    found: dict[tuple[str, str], Path] = {}
    faults: list[str] = []
    second = 0
    for folder in folders:
        if not folder.is_dir():
            raise SepmlError(f"{folder}: no such folder; expected one with the discs of LDC93S6A")
        for split, file in _walk(folder):
            match = _NAME.fullmatch(file.name.lower())
            if match is None or match[2] == "wv2":
                second += match is not None
                continue
            first = found.setdefault((split, match[1]), file)
            if first != file and not _same(first, file):
                faults.append(f"{file}: differs from {first}, which has the same name; remove the one that is wrong")
    if not found:
        hint = f" ({second} .wv2 files are there: the second microphone, LDC93S6B)" if second else ""
        where = ", ".join(map(str, folders))
        raise SepmlError(f"{where}: no .wv1 files below folders {', '.join(UTTERANCES)}; expected LDC93S6A's discs{hint}")
    return [Source(name, split, file) for (split, name), file in sorted(found.items())], faults


def expected_names(lists: Iterable[Path]) -> dict[str, set[str]]:
    """The utterances in mix lists (`mix_*.txt`) and tables of active levels (`activlev_<split>.txt`), by split.

    Args:
        lists: such files, or folders that contain them directly or in a folder `activlev`.

    Raises:
        SepmlError: a file or folder is missing or malformed, or a folder holds neither.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for path in map(Path, lists):
        files = [path]
        if path.is_dir():
            files = sorted({*path.glob("mix_*_spk_*.txt"), *path.glob("activlev_*.txt"), *path.glob("activlev/*.txt")})
            if not files:
                raise SepmlError(f"{path}: holds neither mix lists (mix_2_spk_tr.txt) nor tables (activlev_si_tr_s.txt)")
        for file in files:
            if file.name.startswith("activlev_"):
                names[file.stem.removeprefix("activlev_")] |= read_levels(file).keys()
                continue
            for named in map(Path, {path for line in read_mix_list(file) for path in line.paths}):
                names[named.parent.parent.name].add(named.stem)
    return names


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below folders of the splits, whose names may be in upper case, and the split of each file."""
    for top, folders, files in walk(folder):
        folders[:] = [name for name in folders if name.lower() in UTTERANCES or not _SPLIT.fullmatch(name.lower())]
        parts = [part.lower() for part in top.absolute().parts]
        if split := next((part for part in reversed(parts) if part in UTTERANCES), None):
            yield from ((split, top / name) for name in files)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _headers(sources: Sequence[Source], jobs: int) -> tuple[dict[Path, SphereHeader], list[str]]:
    done, failures = sorted_out(map_unordered(_checked_header, sources, jobs, "reading headers"))
    return {source.file: header for source, header in done}, [failure.message for failure in failures]


def _checked_header(source: Source) -> tuple[Source, SphereHeader]:
    header, file = read_header(source.file), source.file
    if header.channel_count != 1:
        raise SepmlError(f"{file}: has {header.channel_count} channels, expected 1")
    if header.sample_rate != SAMPLE_RATE:
        raise SepmlError(f"{file}: its rate is {header.sample_rate} Hz, expected {SAMPLE_RATE} Hz")
    name = header.fields.get("utterance_id", source.name).lower().partition(".")[0]
    if name != source.name:
        raise SepmlError(f"{file}: its header says that it is the utterance {name}; expected {source.name}")
    _refuse_second_channel(file, header)
    return source, header


def _refuse_second_channel(file: Path, header: SphereHeader) -> None:
    """Refuse second-microphone files under the names of first-microphone files, which cost 1 to 2 dB if unnoticed."""
    found = [f"{key} {value}" for key, value in header.fields.items() if ".wv2" in value.lower()]
    microphone = header.fields.get("microphone", "").lower()
    if microphone and not re.search("senn|hmd|unknown|none", microphone):
        found.append(f"microphone {microphone}")
    if found:
        raise SepmlError(f"{file}: its header says '{found[0]}', the second channel; expected the first, of the Sennheiser")
    twin = file.with_name(re.sub("(?i)wv1", lambda match: match[0][:2] + "2", file.name))
    if twin.is_file() and _same(file, twin):
        raise SepmlError(f"{file}: is the same as {twin.name}; one channel was copied over the other")


@dataclass(frozen=True)
class _Decoded:
    made: bool
    warning: str = ""


def _decode(item: tuple[Source, SphereHeader], out: Path) -> _Decoded:
    source, header = item
    target = out / source.target
    if are_whole([target], header.sample_count):
        return _Decoded(made=False)
    x = read_samples(source.file, header)
    write_wav(target, x, SAMPLE_RATE)
    fits = header.coding == "mu-law" or checksum_fits(x, header)
    return _Decoded(True, "" if fits else f"{source.file}: its samples do not add up to the sample_checksum of its header")


def _missing(out: Path, split: str, named: set[str]) -> list[str]:
    """A text about the utterances that a split lacks; empty list if it is complete."""
    there = {file.stem for file in (out / "wsj0" / split).glob("*/*.wav") if not file.name.startswith(".")}
    absent = sorted(named - there)
    if not absent and len(there) >= UTTERANCES[split]:
        return []
    speakers = len({name[:3] for name in there})
    text = f"{split} has {len(there)} of {UTTERANCES[split]} utterances, {speakers} of {SPEAKERS[split]} speakers"
    if absent:
        text += f", without {', '.join(absent[:_SHOWN])}{' ...' if len(absent) > _SHOWN else ''}"
    return [text]
