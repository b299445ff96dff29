"""A corpus of recorded speech from Debian packages: `sepml prepare prompts`."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.corpora import corpus_folder, debian
from sepml.speech.corpora.cleanup import SAMPLE_RATE, fade, level, to_8k, trim, utterances, write_speaker
from sepml.speech.corpora.clips import Clip, Package, Speaker, all_packages, all_speakers, clips_of
from sepml.speech.corpora.corpus_folder import SpeakerRow, UtteranceRow
from sepml.speech.corpora.draw_mix_lists import ListSizes, finish_with_lists
from sepml.system.files import atomic_path, write_text
from sepml.system.parallel import all_of, map_unordered

log = logging.getLogger(__name__)
RULES = 1  # incremented when the same packages give other audio
LIST_SIZES = {"core": ListSizes(tr=5000, cv=200, tt=200), "full": ListSizes(tr=20000, cv=500, tt=500)}
_SHORTEST_FILE_S = 0.15
_SILENCE = 1e-3
# The shortest clip that is used, after trimming, by the first part of its group: games contain many grunts.
_SHORTEST_S = {"queen": 0.6, "fillets": 0.6}
_SHORTEST_ELSE_S = 0.25
_FULL_SCALE = 32767


def prepare_prompts(
    out: Path,
    size: str = "core",
    seed: int = 0,
    debs: Path | None = None,
    jobs: int = 0,
    lists: ListSizes | None = None,
) -> None:
    """Make a corpus of recorded speech at 8 kHz: `out/<speaker>/<speaker>-NNNN.wav`, tables, licences and mix lists.

    Packages are downloaded with `apt-get download` and unpacked; nothing is installed. The audio depends only on the
    packages, not on `seed` or `jobs`. The same command resumes an interrupted run, and a core corpus can be extended to the
    full one in its folder.

    Args:
        size: `core` = 18 speakers, 5.4 h (telephone prompts, stamp descriptions); `full` = 54 speakers, 11 h (also games).
        seed: of the mix lists.
        debs: a folder with .deb files; packages that it lacks are downloaded into `out/debs`.
        jobs: processes; 0 = all cores.
        lists: number of mixtures in the lists; by default 5000, 200, 200 (training, validation, test) for core and 20000,
            500, 500 for full.

    Raises:
        SepmlError: `out` holds something else, a package cannot be downloaded, or the disk is full.
    """
    if size not in LIST_SIZES:
        raise SepmlError(f"size '{size}' is unknown; known: {', '.join(LIST_SIZES)}{did_you_mean(size, LIST_SIZES)}")
    if debs is not None and not Path(debs).is_dir():
        raise SepmlError(f"{debs}: no such folder; one with .deb files was expected")
    out = Path(out)
    request = {"kind": "prompts", "size": size, "rules": RULES}
    speakers = [speaker for speaker in all_speakers() if size in ("full", speaker.size)]
    stamp = corpus_folder.claim_corpus(out, request, grows_from={**request, "size": "core"})
    if stamp is None:
        folders = [*([Path(debs)] if debs else []), out / "debs"]
        packages = [package for package in all_packages() if any(package in speaker.packages() for speaker in speakers)]
        debs_of = _debs(packages, folders)
        versions = {
            package.name: debian.deb_version(package.name, package.version, debs_of[package.name]) for package in packages
        }
        corpus_folder.begin_corpus(out, request)
        _make(out, speakers, debs_of, versions, jobs)
        stamp = {"corpus": request, "packages": versions}
    finish_with_lists(out, stamp, seed, lists or LIST_SIZES[size])
    log.info("%s: the %s prompts corpus is complete, %d speakers", out, size, len(speakers))


def _make(out: Path, speakers: Sequence[Speaker], debs: Mapping[str, Path], versions: Mapping[str, str], jobs: int) -> None:
    """Write audio, tables and licences."""
    packages = [package for package in all_packages() if package.name in debs]
    # Named after the .deb file, so that a run that is resumed with another version unpacks that version.
    unpacked = {name: corpus_folder.build_folder(out) / "unpacked" / f"{deb.stem}.data" for name, deb in debs.items()}
    all_of(map_unordered(partial(_unpack, debs, unpacked), packages, jobs, "unpacking"))
    _write_licences(out, speakers, packages, unpacked, versions)
    work = partial(_build_speaker, out, unpacked, versions)
    built = all_of(map_unordered(work, list(speakers), jobs, "cutting speech"))
    corpus_folder.write_speakers(out, built, [speaker.name for speaker in speakers])


def _debs(packages: Sequence[Package], folders: list[Path]) -> dict[str, Path]:
    """The .deb file of each package, by its name; packages that the folders lack are downloaded into the last folder."""
    found = {package.name: debian.find_deb(package.name, package.version, folders) for package in packages}
    missing = [name for name, deb in found.items() if deb is None]
    debian.require_tools(fetching=bool(missing))
    if missing:
        debian.download(missing, folders[-1])
        found = {package.name: debian.find_deb(package.name, package.version, folders) for package in packages}
    return {name: deb for name, deb in found.items() if deb is not None}


def _unpack(debs: Mapping[str, Path], unpacked: Mapping[str, Path], package: Package) -> None:
    debian.unpack(debs[package.name], unpacked[package.name], package.wants)


def _build_speaker(
    out: Path, unpacked: Mapping[str, Path], versions: Mapping[str, str], speaker: Speaker
) -> tuple[SpeakerRow, list[UtteranceRow]]:
    """Write the utterances of one speaker, and return the rows of the tables."""
    origin = {package.name: versions[package.name] for package in speaker.packages()}
    if done := corpus_folder.load_speaker(out, speaker.name, origin):
        return done
    clips = sorted(_clean_clips(speaker, unpacked), key=lambda clip: clip[0])
    about = (speaker.name, speaker.sex, speaker.tier, speaker.language, speaker.who, speaker.use)
    row = SpeakerRow(*about, clips=len(clips), groups=speaker.groups, note=speaker.note)
    spoken = utterances(speaker.name, ((f"{group}:{key}", x) for (group, key), x in clips))
    integers = ((np.clip(np.round(x * _FULL_SCALE), -_FULL_SCALE - 1, _FULL_SCALE).astype(np.int16), n) for x, n in spoken)
    return write_speaker(out, row, origin, integers, partial(corpus_folder.split_of_utterance, speaker.use))


def _clean_clips(speaker: Speaker, unpacked: Mapping[str, Path]) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """((group, key), samples at 8 kHz) of the clips with enough speech; only the first of equal recordings."""
    seen: set[bytes] = set()
    contents = {package.name: debian.unpacked_contents(unpacked[package.name]) for package in speaker.packages()}
    for clip in clips_of(speaker, contents):
        if _is_excluded(clip):
            continue
        data = clip.data()
        if _seen_before(data, seen):
            continue
        x, rate = clip.decode(data)
        if len(x) < _SHORTEST_FILE_S * rate or np.abs(x).max() < _SILENCE:
            continue
        # The same recording may exist in several codings.
        if _seen_before((x * _FULL_SCALE).astype(np.int32).tobytes(), seen):
            continue
        y = trim(to_8k(x, rate))
        if len(y) >= _SHORTEST_S.get(clip.group.split("-")[0], _SHORTEST_ELSE_S) * SAMPLE_RATE:
            yield (clip.group, clip.key), fade(level(y))


@cache
def _exclusions() -> list[tuple[str, str]]:
    text = Path(__file__).with_name("exclude.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(group, key) for group, key in lines]


def _is_excluded(clip: Clip) -> bool:
    return any(fnmatchcase(clip.group, group) and fnmatchcase(clip.key, key) for group, key in _exclusions())


def _seen_before(data: bytes, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(data).digest()
    known = digest in seen
    seen.add(digest)
    return known


def _write_licences(
    out: Path,
    speakers: Sequence[Speaker],
    packages: Sequence[Package],
    unpacked: Mapping[str, Path],
    versions: Mapping[str, str],
) -> None:
    """Copy the licence text of each package beside the audio, and write a list of packages and speakers."""
    lines = [
        "The speech in this folder was cut out of the Debian packages below; it has no single licence.",
        "Their licence texts are beside this file: keep them with any copy of the audio, and name the sources with",
        "published models.",
        "",
    ]
    for package in packages:
        contents = debian.unpacked_contents(unpacked[package.name])
        if package.licence_file not in contents.spans:
            raise SepmlError(
                f"{package.name}: {package.licence_file} is absent; every Debian package has its licence text there"
            )
        with atomic_path(out / "LICENSES" / f"{package.name}.copyright") as temporary:
            temporary.write_bytes(contents.read(package.licence_file))
        names = ", ".join(speaker.name for speaker in speakers if package in speaker.packages())
        lines.append(f"{package.name}  {versions[package.name]}  {package.licence}\n    {names}")
    write_text(out / "LICENSES" / "README.txt", "\n".join(lines) + "\n")
