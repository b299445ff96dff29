"""The examples in docs/: every Python block is run, in order, page by page."""

import pkgutil
import re

import numpy as np
import pytest
import soundfile
from docs_examples import BLOCK, PAGES, run
from hub_server import serving, use
from speech_signals import speech_like
from tiny_models import TINY, built

from sepml.speech.models import load as pretrained
from sepml.speech.models.model import save_model

RATE = 8000
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with a recording, its references, a pair of models, and a hub."""
    refs = np.stack([speech_like(seed, 2.0) for seed in (1, 2)])
    for n, ref in enumerate(refs, 1):
        soundfile.write(tmp_path / f"reference_s{n}.wav", ref, RATE)
    soundfile.write(tmp_path / "meeting.wav", refs.sum(0), RATE)
    for peer in (1, 2):
        save_model(tmp_path / f"pair/peer{peer}", built(TINY["stft"], peer))
    (tmp_path / "pair/best.json").write_text('{"peer": 1}')
    monkeypatch.setattr(pretrained, "DEFAULT", tmp_path / "pair")
    monkeypatch.chdir(tmp_path)
    with serving() as hub:
        use(hub, str(tmp_path / "cache"), monkeypatch)
        yield tmp_path


def test_the_names_in_the_walks_exist():
    walks = (PAGES[0].parent / "architecture.md").read_text(encoding="utf-8").split("## Two walks")[1].split("\n## ")[0]
    names = re.findall(r"`(sepml(?:\.\w+)+)`", walks)
    assert len(names) > 20
    assert [name for name in names if find_object(name) is None] == []


def find_object(name: str) -> object | None:
    """The object of a dotted name, None where there is none."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


def test_there_are_examples():
    assert {"python.md", "images.md"} <= {page.name for page in WITH_CODE}


def test_python(there, capsys):
    names = run("python.md")
    assert names["est_sources"].shape == (2, 2 * RATE)
    assert {f.name for f in there.glob("meeting*")} == {"meeting.wav", "meeting_s1.wav", "meeting_s2.wav"}
    assert (there / "mine/README.md").is_file() and names["address"].endswith(names["again"].origin.commit)
    assert len(names["scores"].values["sdr"]) == 2 and sorted(names["scores"].permutation) == [0, 1]
    assert capsys.readouterr().out.startswith("exp/no-such-model: no such folder or file here, and ")


def test_images(tmp_path, monkeypatch):
    pytest.importorskip("timm", reason="the packages for images are not installed")
    from sepml.vision import networks

    networks.save_network(
        tmp_path / "OUT", networks.build_network(networks.NetworkConfig("small", 10, 1, (20, 20), 0.5, True, (0.1,), (0.3,)))
    )
    monkeypatch.chdir(tmp_path)
    assert run("images.md")["logits"].shape == (1, 10)


# The page about ONNX is run by tests/test_export.py, which has such a file.
@pytest.mark.parametrize("name", [page.name for page in WITH_CODE if page.name not in ("python.md", "images.md")])
def test_other_pages(name, there):
    run(name)
