"""Folders of folders and patterns over folders: the outputs lie as the recordings do."""

import os
from pathlib import Path

import pytest
from odd_files import holding, wav
from separating import files, lines, separate

from sepml.errors import SepmlError
from sepml.speech.separation.inputs import list_inputs
from sepml.speech.separation.options import FILENAME, OutputNames


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder `in` with a folder a mixture, and one deeper."""
    monkeypatch.chdir(tmp_path)
    for name in ("one/mixture.wav", "two/mixture.wav", "two/deep/er/mixture.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        holding(wav(), f"in/{name}")(tmp_path)
    return tmp_path


def pairs(*stems: str) -> list[str]:
    return sorted(f"{stem}_s{n}.wav" for stem in stems for n in (1, 2))


EVERYWHERE = ("one/mixture", "two/mixture", "two/deep/er/mixture")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("in/*/mixture.wav",), ("one/mixture", "two/mixture")),
        (("*/*/mixture.wav",), ("in/one/mixture", "in/two/mixture")),
        (("in/**/mixture.wav",), EVERYWHERE),
        (("in",), EVERYWHERE),
        (("in/t*",), ("two/mixture", "two/deep/er/mixture")),
        # The first word that means a file says where its outputs lie.
        (("in/two", "in"), ("mixture", "deep/er/mixture", "one/mixture")),
        (("in/two/mixture.wav",), ("mixture",)),
    ],
    ids=" ".join,
)
def test_outputs_keep_the_folders_of_their_recordings(words, expected, model, place, capsys):
    assert separate(model, "-q", *words, "-o", "out") == 0, lines(capsys)
    assert files(place / "out") == pairs(*expected)
    # Once more, everything is there; and what lies in the folder is not separated again.
    assert separate(model, "-q", *words, "out", "-o", "out") == 0, lines(capsys)
    assert files(place / "out") == pairs(*expected)


def test_the_name_of_a_folder_in_file_names(model, place):
    assert separate(model, "-q", "in/*/mixture.wav", "-o", "out", "--filename", "{parent}_s{n}.wav") == 0
    assert files(place / "out") == pairs("one", "two")
    # The template says how folders are used, so they are not mirrored as well.
    assert separate(model, "-q", "in/*/mixture.wav", "-o", "two", "--filename", "{parent}/s{n}.wav") == 0
    assert files(place / "two") == ["one/s1.wav", "one/s2.wav", "two/s1.wav", "two/s2.wav"]
    os.chdir(place / "in/one")
    assert separate(model, "-q", "mixture.wav", "-o", "here", "--filename", "{parent}_s{n}.wav") == 0
    assert files(place / "in/one/here") == pairs("one")


def test_files_of_one_name_that_the_shell_names_are_told_how_to_be_told_apart(model, place, capsys):
    words = ("in/one/mixture.wav", "in/two/mixture.wav", "-o", "out")
    assert separate(model, "-q", *words) == 1
    [said] = lines(capsys)
    remedy = "{parent}/{name}_s{n}.{ext}"
    assert said.endswith(f"in/one/mixture.wav and by in/two/mixture.wav; --filename '{remedy}' tells them apart")
    assert separate(model, "-q", *words, "--filename", remedy) == 0
    assert files(place / "out") == pairs("one/mixture", "two/mixture")


def test_links_that_lead_back_are_followed_once(place):
    (place / "in/one/back").symlink_to(place / "in")
    (place / "elsewhere").mkdir()
    holding(wav(), "elsewhere/linked.wav")(place)
    (place / "in/linked").symlink_to(place / "elsewhere")
    (place / "in/.hidden").mkdir()
    holding(wav(), "in/.hidden/h.wav")(place)
    found, failures = list_inputs([Path("in")], Path("out"), OutputNames(FILENAME, 2))
    assert [str(item.file) for item in found] == [
        "in/linked/linked.wav",
        "in/one/mixture.wav",
        "in/two/mixture.wav",
        "in/two/deep/er/mixture.wav",
    ]
    assert [str(item.below) for item in found] == ["linked", "one", "two", "two/deep/er"] and failures == []


def test_folders_that_hold_nothing(model, place, capsys):
    (place / "void/a").mkdir(parents=True)
    (place / "void/b").mkdir()
    assert separate(model, "-q", "void", "void/*", "in/one", "-o", "out") == 1
    assert lines(capsys) == [
        "sepml: error: void: holds no audio files",
        "sepml: error: void/*: matches folders only, and they hold no audio files",
    ]
    assert files(place / "out") == pairs("mixture")


@pytest.mark.parametrize(("template", "suffixless"), [("{suffix}/{n}.wav", "/1.wav"), (".{suffix}./{n}.wav", "../1.wav")])
def test_a_name_leads_out_of_the_folder_for_no_recording(template, suffixless, model, place, capsys):
    """Of a recording without a suffix the template above the folder of the outputs."""
    holding(wav(), "recording")(place)
    with pytest.raises(SepmlError, match="leads out of the output folder"):
        OutputNames(template, 2).of(Path("recording"), Path("out"))
    assert separate(model, "-q", "recording", "-o", "out", "--filename", template) == 1
    [said] = lines(capsys)
    assert said == f"sepml: error: recording: the name of its outputs would be '{suffixless}': leads out of the output folder"
    assert not (place / "out").exists() and not (place / "1.wav").exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{n:1000000000}.wav", "{n:1000000000} gives no file names; expected {n}, {n:02} or the like"),
        ("{n:{n}}.wav", "{n:{n}} gives no file names"),
        ("{n!r}.wav", "{n!r} gives no file names"),
        ("{name:>1000000000}{n}.wav", "{name:>1000000000} gives no file names"),
        ("a/" * 40 + "{n}.wav", "has 40 folders, expected fewer than 32"),
    ],
)
def test_a_template_of_absurd_names_is_wrong_usage(template, message, model, place, capsys):
    with pytest.raises(SystemExit) as end:
        separate(model, "in", "-o", "out", "--filename", template)
    assert end.value.code == 2 and message in capsys.readouterr().err and not (place / "out").exists()


def test_names_of_a_width(model, place):
    assert separate(model, "-q", "in/one/mixture.wav", "-o", "out", "--filename", "{name:.3}_{n:02}.wav") == 0
    assert files(place / "out") == ["mix_01.wav", "mix_02.wav"]
