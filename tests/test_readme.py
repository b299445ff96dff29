"""Every command of the README, as in a clone: run with small settings, or its options are parsed (see `PARSED`)."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from speech_signals import speech_like
from test_extras import extras

from sepml.cli import main, make_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RATE = 8000
PAGES = [ROOT / "README.md", ROOT / "docs/separate.md"]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is added to commands that would take minutes, or all cores.
SMALL = {
    "separate": "",
    "prepare": "--lists 2 2 2 --split 0.34 0.33 0.33 -j 1",
    "mix": "-j 1",
    "train": "-d cpu --fit.epochs 1 --data.dynamic.size 2 --data.batch_size 1 --data.segment 0.5",
    # One run of the six.
    "study": "-d cpu --part 1/6 --fit.epochs 1 --data.dynamic.size 2 --data.batch_size 1 --data.segment 0.5",
}
# Not run: the page waits for visitors (tests/speech/demo does it).
PARSED = {"serve"}


def commands(page: Path) -> list[list[str]]:
    """The words of all commands in `sh` blocks; of a pipe the part that is sepml's."""
    lines = [line for block in BLOCK.finditer(page.read_text(encoding="utf-8")) for line in block[1].splitlines()]
    return [shlex.split(line.split(" | ")[-1].split(" > ")[0], comments=True) for line in lines if line.strip()]


def there(words: list[str], folder: Path) -> list[str]:
    """The words with patterns as the shell writes them out."""
    found = [sorted(str(file.relative_to(folder)) for file in folder.glob(word)) if "*" in word else [word] for word in words]
    return [name for names in found for name in names]


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A working folder with what a clone has, a recording, and folders of speakers."""
    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    for talker, name in enumerate(("anna", "ben", "carl", "dora", "emil", "fay")):
        for number in range(3):
            file = tmp_path / f"speech/{name}/{number}.{'mp3' if talker % 2 else 'wav'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, 0.3 * speech_like(7 * talker + number, 2.0), RATE)
    soundfile.write(tmp_path / "meeting.mp3", 0.3 * (speech_like(1, 3.0) + speech_like(2, 3.0)), RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(900)
def test_every_command_of_sepml_is_run_in_order(clone, capsys):
    pytest.importorskip("statsmodels", reason="the extra study is not installed")
    run = []
    for words in commands(PAGES[0]):
        if words[0] != "sepml" or words[1] in PARSED:
            continue
        assert main(there(words[1:], clone) + SMALL[words[1]].split()) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
        run.append(words[1])
    assert run == ["separate", "separate", "prepare", "mix", "train", "study"]
    # What the comments and the next paragraphs name is there.
    assert {file.name for file in (clone / "three").iterdir()} >= {"meeting_s1.wav", "meeting_s2.wav", "meeting_s3.wav"}
    assert (clone / "separated/meeting_s1.wav").is_file() and list((clone / "compare").iterdir())
    assert main(["separate", "meeting.mp3", "-o", "mine", "--model", "pair"]) == 0
    assert (clone / "mine/meeting_s2.wav").is_file()


def test_mixtures_with_their_sources_are_trained_on(clone, capsys):
    """The commands of docs/train.md, on mixtures of 16 kHz."""
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8").split("## Mixtures that you have, with their sources")[1]
    for split in ("train", "valid", "test"):
        sources = [0.3 * speech_like(seed, 1.0) for seed in (1, 2)]
        for part, samples in zip(("s1", "s2", "mix"), [*sources, sum(sources)], strict=True):
            file = clone / f"mixtures/{split}/{part}/001.wav"
            file.parent.mkdir(parents=True)
            soundfile.write(file, samples, 16000)
    small = {"prepare": "-j 1", "train": "-d cpu --fit.epochs 1 --data.batch_size 1 --data.segment 0.3"}
    found = BLOCK.search(page)
    assert found and len(found[1].splitlines()) == 2
    for line in found[1].splitlines():
        words = shlex.split(line)[1:]
        assert main([*words, *small[words[0]].split()]) == 0, f"{line}: {capsys.readouterr().err}"
    assert {file.name for file in (clone / "own").glob("*.csv")} == {"train.csv", "valid.csv", "test.csv"}
    assert soundfile.info(clone / "own/train/mix/001.wav").samplerate == RATE and (clone / "pair/peer2").is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_is_known(page):
    """Also those of commands that need a network, a microphone or minutes."""
    parser = make_parser()
    known = [words for words in commands(page) if words[0] == "sepml"]
    assert len(known) > 5
    for words in known:
        options, rest = parser.parse_known_args(words[1:])
        assert options.command == words[1] and rest == []


def test_the_other_commands_exist():
    others = [words for words in commands(PAGES[0]) if words[0] != "sepml"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert others == [["pip", "install", "."], ["make", "demo"], ["make", "test"]]
    assert {words[1] for words in others[1:]} <= set(targets)
    # `.[train,page]` and the words "extra train" in comments.
    named = [name for names in re.findall(r"\.\[([\w,]+)\]", README) for name in names.split(",")]
    named += re.findall(r"\(.*?extra (\w+)\)", README)
    assert len(named) >= 6 and set(named) <= extras().keys()


def test_the_table_of_commands_is_complete():
    table = README.split("| command | does |")[1].split("\n\n")[0]
    parser = make_parser()
    known = next(action for action in parser._actions if action.choices and "separate" in action.choices).choices
    assert set(re.findall(r"`(\w+)`", table)) == set(known or ())


def test_the_python_of_the_readme():
    names = {"waveform": speech_like(1, 2.0) + speech_like(2, 2.0), "sample_rate": RATE}
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert names["est_sources"].shape == (names["count"].talkers, 2 * RATE) and 0 < names["count"].certainty <= 1


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/install.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)]
    assert links and [link for link in links if not (page.parent / link).exists()] == []


def test_it_is_short():
    assert len(README.splitlines()) <= 120
