"""Requests: what a folder was begun with decides whether a run resumes, is refused, or replaces what is there."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sepml.errors import SepmlError
from sepml.system.stamp import (
    OtherContent,
    Request,
    claim_noted,
    digest_of,
    file_digest,
    model_fingerprint,
    note_settings,
    require_own,
)

WAS = {"seed": 1, "fit": {"epochs": 3, "betas": [0.9, 0.99]}}


@pytest.mark.parametrize(
    ("settings", "may_change", "force", "expected"),
    [
        (WAS, (), False, "resume"),
        ({**WAS, "seed": 2}, (), False, "refuse"),
        ({**WAS, "seed": 2}, (), True, "replace"),
        ({**WAS, "seed": 2}, ("seed",), False, "resume"),
        ({**WAS, "fit": {"epochs": 9, "betas": (0.9, 0.99)}}, ("fit.epochs",), False, "resume"),
        ({**WAS, "fit": {"epochs": 9, "betas": [0.9, 0.9]}}, ("fit.epochs",), False, "refuse"),
        ({"seed": 1}, (), False, "refuse"),
        ({**WAS, "new": None}, (), False, "resume"),
    ],
)
def test_the_three_answers(settings, may_change, force, expected):
    request = Request(settings, may_change)
    was = json.loads(json.dumps(WAS))
    assert request.claim(Path("exp"), "a run", None, force) == "replace"
    if expected == "refuse":
        with pytest.raises(OtherContent):
            request.claim(Path("exp"), "a run", was)
    else:
        assert request.claim(Path("exp"), "a run", was, force) == expected


def refusal(now: dict[str, object], was: dict[str, object]) -> str:
    with pytest.raises(OtherContent) as caught:
        Request(now).claim(Path("exp"), "a run", was)
    return str(caught.value)


def test_a_refusal_names_what_differs():
    way_out = "; choose another folder or delete it"
    assert refusal({"seed": 2}, {"seed": 1}) == f"exp: holds a run with seed = 1, now 2{way_out}"
    assert refusal({"a": [1, 2]}, {"a": [1]}) == f"exp: holds a run with a.1 = None, now 2{way_out}"
    four = {name: 1 for name in "dcba"}
    assert refusal(four, {}) == f"exp: holds a run with {' and '.join(f'{n} = None, now 1' for n in 'abc')} and 1 more{way_out}"
    # Of two tasks nothing else can be compared.
    assert refusal({"a": 1, "task": "y"}, {"a": 2, "task": "x"}) == f"exp: holds a run with task = x, now y{way_out}"
    digest = digest_of(["x"])
    assert refusal({"manifest": digest}, {}) == f"exp: holds a run with manifest = None, now {digest[:16]}{way_out}"


def test_a_folder_without_a_note_must_be_empty():
    require_own(Path("exp"), "a run", "config.yaml", [])
    with pytest.raises(OtherContent, match=r"^exp: holds 'thesis.txt' but not the config.yaml of a run; choose another folder"):
        require_own(Path("exp"), "a run", "config.yaml", ["thesis.txt", "z.txt"])


def test_noted_settings_decide(tmp_path):
    folder = tmp_path / "tr"
    assert claim_noted(folder, "mixtures", {"sources": 2}) == "replace" and not folder.exists()
    note_settings(folder, {"sources": 2, "of": "an earlier version"})
    (folder / "mix").mkdir()
    assert claim_noted(folder, "mixtures", {"sources": 2}) == "resume"
    with pytest.raises(OtherContent, match=r"tr: holds mixtures with sources = 2, now 3; choose another folder or delete it"):
        claim_noted(folder, "mixtures", {"sources": 3})
    (folder / ".settings.json").write_text("[")
    with pytest.raises(SepmlError, match=r"json: not a note that sepml writes, choose another folder or delete .*tr: "):
        claim_noted(folder, "mixtures", {"sources": 2})


def test_results_without_a_note_are_refused(tmp_path):
    (tmp_path / ".made.json").touch()
    assert claim_noted(tmp_path, "shards", {}) == "replace"
    (tmp_path / "tr.csv").touch()
    assert claim_noted(tmp_path, "shards", {}, "shard-*.tar") == "replace"
    with pytest.raises(OtherContent, match=r"holds 'tr.csv' but not the .settings.json of shards; choose another folder"):
        claim_noted(tmp_path, "shards", {})


def test_digests_are_plain_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert file_digest(tmp_path / "a") == digest_of(["a", b"bc"]) == expected
    assert file_digest(tmp_path / "a", 16) == digest_of(["abc"], 16) == expected[:16]
    with pytest.raises(SepmlError, match="b: cannot be read"):
        file_digest(tmp_path / "b")


class Network(nn.Linear):
    config = ("linear", 2)


def test_a_models_fingerprint_depends_on_its_content_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(b"{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    found = model_fingerprint([tmp_path / "one"])
    # As summary.json of earlier versions has it.
    assert found == hashlib.sha256(b"{}weights").hexdigest()[:16] == model_fingerprint([tmp_path / "two"])
    (tmp_path / "two" / "model.safetensors").write_bytes(b"others")
    assert model_fingerprint([tmp_path / "two"]) != found
    network = Network(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    # As the outputs of earlier versions have it in their comment.
    content = b"('linear', 2)" + b"weight torch.float32 (1, 2)" + network.weight.detach().numpy().tobytes()
    assert model_fingerprint([network]) == hashlib.sha256(content).hexdigest()[:16]
