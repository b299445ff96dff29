"""What `pip install .` alone brings is enough for the first commands; without the packages of an extra, one line names it."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_signals import speech_like
from tiny_models import TINY, built

from sepml.errors import SepmlError
from sepml.speech.models.model import save_model
from sepml.system.extras import needs_extra

ROOT = Path(__file__).resolve().parents[1]
# Names to import of the packages that only extras bring. Asteroid brings pandas, and imports the Hub's package without any use.
OF_EXTRAS = (
    *("pytorch_lightning", "lightning_fabric", "tensorboard", "onnx", "onnxruntime", "onnxscript", "torchvision", "timm"),
    *("matplotlib", "mlxtend", "python_multipart", "starlette", "uvicorn", "librosa", "speechmos", "statsmodels"),
    *("distributed", "dask", "espeakng_loader", "torch_geometric"),
)
# A module with what Asteroid reads when it is imported stands for the Hub's package: nothing else can be imported from it.
WITHOUT = f"""
import sys, types
sys.modules.update(dict.fromkeys({OF_EXTRAS}))
sys.modules["huggingface_hub"] = types.ModuleType("huggingface_hub")
sys.modules["huggingface_hub"].HUGGINGFACE_CO_URL_HOME = ""
from sepml.cli import main
"""
RATE = 8000


def extras() -> dict[str, str]:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return dict(parsed["options.extras_require"])


def program(cwd: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """A new process in which the packages of the extras cannot be imported."""
    return subprocess.run([sys.executable, "-c", WITHOUT + lines], cwd=cwd, capture_output=True, text=True)


def recordings(root: Path) -> Path:
    for talker in range(6):
        for number in range(3):
            file = root / f"speech/talker{talker}/{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, 0.3 * speech_like(7 * talker + number, 3.0), RATE)
    return root


def test_the_base_prepares_mixes_evaluates_separates_and_scores(tmp_path):
    commands = """
for words in (
    "prepare folder --utterances speech --out own --split 0.34 0.33 0.33 --lists 2 1 1 -j 1",
    "mix --list own/lists/mix_2_spk_tt.txt --root own --out own -j 1",
    "evaluate --manifest own/wav8k/min/tt.csv -o scores --ensemble --report",
    "separate own/wav8k/min/tt/mix -o out --speakers 2",
    "score --manifest own/wav8k/min/tt.csv --est out -o scored -j 1",
):
    assert main(words.split()) == 0, words
"""
    done = program(recordings(tmp_path), commands)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores/report.html").is_file() and (tmp_path / "scored/summary.json").is_file()
    outputs = list((tmp_path / "out").rglob("*.wav"))
    assert len(outputs) == 2 and all(np.abs(soundfile.read(file)[0]).max() > 0 for file in outputs)


def test_each_command_names_its_extra(tmp_path):
    """The first line that is said, and nothing is left behind."""
    soundfile.write(tmp_path / "a_s1.wav", speech_like(1, 1.0), RATE)
    images = ROOT / "recipes/mnist-mutual/conf"
    lines = {
        f"train --config {ROOT / 'recipes/prompts-2mix/conf/demo.yaml'} --exp exp": "train",
        "adapt a_s1.wav -o adapted": "train",
        f"study {ROOT / 'recipes/prompts-2mix/study.yaml'} -o out": "study",
        "export model model.onnx": "export",
        "serve": "page",
        "score --est . -o scores": "quality",
        f"train --config {sorted(images.glob('*.yaml'))[0]} --exp exp": "vision",
        f"train --config {ROOT / 'recipes/music-listening/conf/mutual.yaml'} --exp exp": "graph",
        "prepare synthetic --out synthetic": "synthetic",
        "separate a_s1.wav --model user/model -o out": "hub",
        "score --manifest x.csv --est . -o scores --cluster tcp://127.0.0.1:9": "cluster",
    }
    done = program(tmp_path, "".join(f"assert main({words.split()}) == 1\n" for words in lines))
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(lines), done.stderr
    for line, (words, extra) in zip(said, lines.items(), strict=True):
        expected = rf"sepml: error: .* needs? the package \w+.*: pip install 'sepml\[{extra}\]'"
        assert re.fullmatch(expected, line), f"{words}: {line}"
    assert set(lines.values()) == extras().keys() - {"all", "docs", "tensorboard", "test"}
    assert [file.name for file in tmp_path.iterdir()] == ["a_s1.wav"]


def test_asteroid_is_imported_for_its_networks_alone(tmp_path):
    """A model folder of another kind does without, and so do the commands before there is a model."""
    save_model(tmp_path / "model", built(TINY["sepformer"]))
    soundfile.write(tmp_path / "a.wav", speech_like(1, 1.0), RATE)
    lines = """
sys.modules["asteroid"] = None
assert main("separate a.wav --model model -o out".split()) == 0
assert main("prepare folder --help".split()) == 0
"""
    done = program(tmp_path, lines)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/a_s1.wav").is_file()


def test_all_and_test_bring_every_extra():
    packages = extras()
    named = re.fullmatch(r"sepml\[([\w,]+)\]", packages["all"])
    assert named and set(named[1].split(",")) == packages.keys() - {"all", "docs", "tensorboard", "test"}
    assert packages["test"].split()[0] == "sepml[all]"
    # Every extra that a message or a page names exists.
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "sepml").rglob("*.py")]
    texts = [(file, name) for file in files for name in re.findall(r"sepml\[([a-z,]+)\]", file.read_text(encoding="utf-8"))]
    assert {file.name for file, _ in texts} >= {"install.md", "serve.md", "tensorboard.py"}
    assert [(file, name) for file, names in texts for name in names.split(",") if name not in packages] == []


def test_the_page_about_installing_has_every_extra():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/install.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(extras().keys() - {"docs", "tensorboard", "test"})


def test_what_the_line_says():
    message = r"^flying needs the package no_such_wings: pip install 'sepml\[air\]'$"
    with pytest.raises(SepmlError, match=message), needs_extra("air", "flying"):
        import no_such_wings.feathers  # noqa: F401
    message = r"^sums needs the package numpy, which cannot be imported \(cannot import name 'no_such_sum'.*pip install"
    with pytest.raises(SepmlError, match=message), needs_extra("air", "sums"):
        from numpy import no_such_sum  # noqa: F401
    # A fault of sepml itself is not the user's.
    with pytest.raises(ModuleNotFoundError), needs_extra("air", "sums"):
        import sepml.no_such_module  # noqa: F401
