"""The Debian packages that hold recorded speech, their speakers, and the clips inside of the unpacked packages.

A clip has a group, the finest label of voices in the package itself (language folder, game character, credited actor),
and a key that is unique in its group. The table of speakers says which groups belong to a speaker.
"""

import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from posixpath import splitext

import numpy as np
import soundfile

from sepml.errors import SepmlError
from sepml.speech.corpora.debian import Contents
from sepml.system.csv_files import read_rows

_FOLDER = Path(__file__).parent
_AUDIO = (".wav", ".ogg", ".opus", ".mp3", ".flac")
_GROUPED_BY_FORMAT = ("tuxpaint", "by_language")
_GSM = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": "GSM610"}
_TONES = re.compile(
    r"(^|/)(silence/|beep|beeperr|ascending-2tone|descending-2tone|confbridge-(join|leave)\.|"
    r"tt-monkeys\.|conf-placeintoconf-tone|dictate/playback_tone)"
)


@dataclass(frozen=True)
class Package:
    """A Debian package that holds speech.

    Attributes:
        version: for which the tables were made (Debian 12).
        reader: how its clips are found: asterisk, tuxpaint, by_language, fillets or queen.
        place: the folder (or container file) inside the package that holds the speech.
        prefix: the first part of the names of its clip groups.
    """

    name: str
    version: str
    licence: str
    reader: str
    place: str
    prefix: str

    def holds(self, pattern: str) -> bool:
        """Whether the groups that match a speaker's `pattern` are in this package."""
        return pattern == self.prefix if self.reader == "asterisk" else pattern.startswith(f"{self.prefix}-")

    @property
    def licence_file(self) -> str:
        """Where Debian keeps the licence text, inside the package."""
        return f"usr/share/doc/{self.name}/copyright"

    def wants(self, name: str) -> bool:
        """Whether the file `name` of the package is needed."""
        speech = name == self.place or (name.startswith(f"{self.place}/") and name.lower().endswith((*_AUDIO, ".gsm")))
        return speech or name == self.licence_file


@dataclass(frozen=True)
class Speaker:
    """A person (in some cases a few persons) recorded in one or more clip groups.

    Attributes:
        sex: F, M or ?, followed by C (from the credits) or P (estimated from the pitch).
        language: codes, separated by commas.
        who: the name or the role, if it is known.
        groups: shell patterns of the clip groups with this voice, separated by spaces.
        use: `train` (which also gives the seen-speaker sets), `valid` or `test` (the unseen-speaker sets).
        tier: A clean phrases or running speech; B clean but coarsely coded; C reverberant; D isolated words, joined.
        size: of the smallest corpus that has this speaker, core or full.
    """

    name: str
    sex: str
    language: str
    who: str
    groups: str
    use: str
    tier: str
    note: str
    size: str

    def packages(self) -> list[Package]:
        """The packages that contain clips of this speaker."""
        return [package for package in all_packages() if any(map(package.holds, self.groups.split()))]


@cache
def all_packages() -> tuple[Package, ...]:
    """The packages of `packages.csv`."""
    return tuple(Package(**row) for _, row in read_rows(_FOLDER / "packages.csv", "table of packages"))


@cache
def all_speakers() -> tuple[Speaker, ...]:
    """The speakers of `speakers.csv`: those of telephone prompts and stamp descriptions (core), then those of games."""
    return tuple(Speaker(**row) for _, row in read_rows(_FOLDER / "speakers.csv", "table of speakers"))


@dataclass(frozen=True)
class Clip:
    """A recording: a file of a package, or a part of a container file.

    Attributes:
        file: the path inside the package.
        first, count: the range of bytes in the file; by default the whole file.
    """

    group: str
    key: str
    contents: Contents
    file: str
    first: int = 0
    count: int | None = None

    @property
    def name(self) -> str:
        """The clip's name in `utterances.csv`."""
        return f"{self.group}:{self.key}"

    def data(self) -> bytes:
        """The bytes of the encoded clip."""
        return self.contents.read(self.file, self.first, self.count)

    def decode(self, data: bytes) -> tuple[np.ndarray, int]:
        """The samples in [-1, 1], mono float64 (T,), and the rate in Hz.

        Args:
            data: the result of `data()`.

        Raises:
            SepmlError: it is not audio.
        """
        form = _GSM if self.file.endswith(".gsm") else {}
        try:
            # These codecs decode to 16 bits or single precision: float32 loses nothing and is a third faster to read.
            x, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True, **form)
        except soundfile.LibsndfileError as error:
            raise SepmlError(f"{self.file}: clip {self.name} is no readable sound ({error.error_string})") from error
        x = x.astype(np.float64)
        return sum(x.T[1:], start=x[:, 0]) / x.shape[1], rate


def clips_of(speaker: Speaker, contents: Mapping[str, Contents]) -> list[Clip]:
    """The clips of a speaker, in the order of the packages.

    Args:
        contents: of the packages, by their names.

    Raises:
        SepmlError: a package has no such clips.
    """
    found, groups = [], speaker.groups.split()
    for package in speaker.packages():
        held = contents[package.name]
        clips = _queen(held, package) if package.reader == "queen" else _files(held, package, groups)
        mine = [clip for clip in clips if any(fnmatchcase(clip.group, pattern) for pattern in groups)]
        if not mine:
            known = f"the tables were made with version {package.version}"
            raise SepmlError(f"{package.name}: no clips of {speaker.name} in {package.place}; {known}")
        found += mine
    return found


def _format_label(contents: Contents, name: str) -> str:
    """Rate and channels: if a language has several volunteers, their files mostly differ in these as well."""
    head = contents.read(name, count=44)
    if head[:4] == b"OggS" and head[28:35] == b"\x01vorbis":
        # The first Vorbis header is at a fixed position; opening the file takes a third as long as decoding it.
        channels, rate = struct.unpack("<BI", head[39:])
    else:
        try:
            info = soundfile.info(io.BytesIO(contents.read(name)))
        except soundfile.LibsndfileError as error:
            raise SepmlError(f"{name}: no readable sound ({error.error_string})") from error
        channels, rate = info.channels, info.samplerate
    return f"{rate // 1000}k{channels}"


def _group(package: Package, relative: str) -> str | None:
    """The group of a file by its path below the folder of the speech; None where the file is not wanted."""
    match package.reader:
        case "asterisk":
            return None if _TONES.search(relative.split("/", 1)[-1]) else package.prefix
        case "tuxpaint":
            described = re.search(r"_desc(?:_([A-Za-z_]+))?\.(ogg|wav)$", relative)
            return f"{package.prefix}-{described[1] or 'en'}" if described else None
        case "by_language":
            return f"{package.prefix}-{relative.split('/')[0]}"
        case _:
            fish = re.search(r"-([mv])-", relative.rsplit("/", 1)[-1])
            own_language = f"/{package.prefix.rsplit('-', 1)[1]}/" in relative
            return f"{package.prefix}-{fish[1]}" if fish and own_language else None


def _files(contents: Contents, package: Package, groups: Sequence[str]) -> Iterator[Clip]:
    """The sound files of a package as clips, in the order of their paths."""
    suffixes = (".wav", ".gsm") if package.reader == "asterisk" else _AUDIO
    for name in sorted(contents.spans):
        if not (name.startswith(f"{package.place}/") and name.lower().endswith(suffixes)):
            continue
        relative = name.removeprefix(f"{package.place}/")
        group = _group(package, relative)
        if group and package.reader in _GROUPED_BY_FORMAT:
            # The format is read only from files of wanted languages.
            wanted = any(pattern.startswith(f"{group}-") for pattern in groups)
            group = f"{group}-{_format_label(contents, name)}" if wanted else None
        if group:
            yield Clip(group, splitext(relative)[0].replace("/", "_"), contents, name)


def _queen(contents: Contents, package: Package) -> Iterator[Clip]:
    """The speech in the container of the game: a table of named members, in which speech is MP3.

    Dialogue is named `<talk key><node>J<segment>` for the hero and `...P<segment>` for the other person, whose talk key is in
    the header of their `.DOG` member.
    """
    place = package.place
    if place not in contents.spans:
        return
    head = contents.read(place, count=15)
    if head[:4] != b"QTBL" or len(head) < 15:
        raise SepmlError(f"{place}: begins with {head[:4]!r}, a table of members (b'QTBL') was expected")
    table = contents.read(place, 15, 21 * struct.unpack(">H", head[13:])[0])
    rows = struct.iter_unpack(">12sxII", table)
    members = {name.rstrip(b"\0").decode("latin1"): (start, size) for name, start, size in rows}
    person = {
        struct.unpack(">h", contents.read(place, start + 24, 2))[0]: name.removesuffix(".DOG").lower()
        for name, (start, _) in members.items()
        if name.endswith(".DOG")
    }
    for name in sorted(members):
        dialogue = re.match(r"(\d\d)....([JP])", name)
        if not name.endswith(".SB"):
            continue
        if re.match(r"JOE\d", name) or (dialogue and dialogue.group(2) == "J"):
            voice = "joe"
        elif dialogue and int(dialogue.group(1)) in person:
            voice = person[int(dialogue.group(1))]
        else:
            continue
        yield Clip(f"{package.prefix}-{voice}", name.removesuffix(".SB"), contents, place, *members[name])
