"""Small Debian packages of speech, and what is compared of the corpora made of them."""

import csv
import hashlib
import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.speech.corpora import prompts
from sepml.speech.corpora.clips import all_packages, all_speakers
from sepml.speech.corpora.draw_mix_lists import ListSizes

SPEAKERS = ("f-june", "f-jimenez", "f-dalzot", "m-tuxda", "f-astru", "f-tuxel")
LIST_SIZES = ListSizes(tr=8, cv=2, tt=2)
STAMPS = "usr/share/tuxpaint/stamps"
SOUNDS = "usr/share/asterisk/sounds"


def speech(name: str, seconds: float, rate: int) -> np.ndarray:
    """Syllables of noise at -25 dBFS, different for every name."""
    rng = np.random.default_rng(list(name.encode()))
    n = int(seconds * rate)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(n) / rate)
    return (0.08 * rng.standard_normal(n) * syllables).clip(-1, 1)


def encoded(name: str, seconds: float = 3.5, kind: str = "wav", rate: int = 8000, channels: int = 1) -> bytes:
    x = np.repeat(speech(name, seconds, rate)[:, None], channels, axis=1)
    file = io.BytesIO()
    form, subtype = {"wav": ("WAV", "PCM_16"), "gsm": ("RAW", "GSM610"), "ogg": ("OGG", "VORBIS")}[kind]
    soundfile.write(file, x, rate, format=form, subtype=subtype)
    return file.getvalue()


def build_deb(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    tree = folder / f"tree-{name}"
    files = {**files, f"usr/share/doc/{name}/copyright": f"licence of {name}\n".encode()}
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: test\n"
    for path, data in {**files, "DEBIAN/control": control.encode()}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    target = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(tree)


def package_files() -> dict[str, dict[str, bytes]]:
    """Clips where the real packages have them, with what the rules leave out or join."""
    june = {f"{SOUNDS}/fr_CA_f_June/p-{i:02d}.wav": encoded(f"june{i}") for i in range(40)}
    june |= {
        f"{SOUNDS}/fr_CA_f_June/beep.wav": encoded("beep"),
        f"{SOUNDS}/fr_CA_f_June/silence/1.wav": encoded("silence"),
        f"{SOUNDS}/fr_CA_f_June/letters/i.wav": encoded("excluded"),
        f"{SOUNDS}/fr_CA_f_June/quiet.wav": encoded("quiet", 0.1),
        f"{SOUNDS}/fr_CA_f_June/zz-copy.wav": encoded("june3"),
        f"{SOUNDS}/fr_CA_f_June/readme.txt": b"no sound",
    }
    june |= {f"{SOUNDS}/fr_CA_f_June/z-short-{i}.wav": encoded(f"short{i}", 1.5) for i in range(4)}
    gsm = {f"{SOUNDS}/es/g-{i:02d}.gsm": encoded(f"gsm{i}", kind="gsm") for i in range(20)}
    stamps = {
        f"usr/share/tuxpaint/stamps/animals/{name}{i}_desc_{name}.ogg": encoded(
            f"{name}{i}", kind="ogg", rate=22050, channels=2
        )
        for name in ("da", "el", "fi", "be")
        for i in range(2)
    }
    return {
        "asterisk-core-sounds-fr-wav": june,
        "asterisk-prompt-es-co": gsm,
        "asterisk-prompt-it-menardi-wav": {f"{SOUNDS}/it/i-{i}.wav": encoded(f"it{i}") for i in range(2)},
        "asterisk-core-sounds-ru-wav": {f"{SOUNDS}/ru_RU_f_IvrvoiceRU/r-{i}.wav": encoded(f"ru{i}") for i in range(2)},
        "tuxpaint-stamps-default": stamps,
    }


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", name="debs")
def small_debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path_factory.mktemp("debs")
    versions = {package.name: package.version for package in all_packages()}
    for name, files in package_files().items():
        build_deb(folder, name, versions[name], files)
    return folder


@pytest.fixture(name="few_speakers")
def six_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core corpus of these tests has six speakers of five packages, the full one a seventh."""
    sizes = {**dict.fromkeys(SPEAKERS, "core"), "f-tuxbe": "full"}
    few = [replace(speaker, size=sizes[speaker.name]) for speaker in all_speakers() if speaker.name in sizes]
    monkeypatch.setattr(prompts, "all_speakers", lambda: sorted(few, key=lambda speaker: speaker.size))
