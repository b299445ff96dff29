"""Messages about settings: they name keys and files that exist, and whatever is written there is one line, exit 1."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sepml.cli import main
from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError
from sepml.speech.experiment import SeparationExperiment
from sepml.speech.models.backbones import AnyConfig
from sepml.training.experiment import fresh_networks

CONTENT = {"data": {"valid": "cv.csv", "train": "tr.csv"}, "peers": [{"kind": "dprnn"}, {"kind": "convtasnet"}]}


def fault(*words: str, kind: type = SeparationExperiment, content: dict = CONTENT) -> str:
    with pytest.raises(SepmlError) as caught:
        parse(kind, override(content, [*words]), "a.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # `step` is a kind of learning rate, `sgd` one of optimiser, `dprnn` one of network, and keys may be called so.
        ("--cohort.threshold.step=x", "'cohort.threshold.step': input should be a valid number"),
        ("--peers.0.dprnn=1", "unknown key 'peers.0.dprnn'"),
        ("--peers.1.kernel=x", "'peers.1.kernel': input should be a valid integer"),
        ("--peers.0.filterbank=x", "'peers.0.filterbank': input should be 'free' or 'stft', got 'x'"),
        ("--data.dynamic.DynamicMixing=1", "unknown key 'data.dynamic.DynamicMixing'"),
        ("--fit.optimizer.betas=[1, 2]", "'fit.optimizer.betas.0': input should be less than 1, got 1"),
        ("--peers.1.blocks=[]", "'peers.1.blocks': input should be a valid integer, got []"),
        ("--data=3", "'data': input should be a dictionary"),
    ],
)
def test_the_whole_key_is_named(word, expected):
    assert expected in fault(word)


def test_a_key_that_is_called_like_the_kind_that_is_tried():
    settings = {"network": "DPTNet", "n_src": 2, "sample_rate": 8000, "window": 16, "kind": "asteroid"}
    assert "'arguments.asteroid': " in fault("--arguments.asteroid=[]", kind=AnyConfig, content=settings)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--fit.wieght=1", "unknown key 'fit.wieght'; did you mean 'cohort.weight'?"),
        ("--fit.epoch=1", "unknown key 'fit.epoch'; did you mean 'fit.epochs'?"),
        ("--peers.0.hiden=1", "unknown key 'peers.0.hiden'; did you mean 'peers.0.hidden'?"),
        ("--hidden=1", "unknown key 'hidden'; did you mean 'peers.0.hidden'?"),
        ("--thrshold=1", "unknown key 'thrshold'; did you mean 'cohort.threshold'?"),
        ("--peers.0.repeats=1", "unknown key 'peers.0.repeats'"),
        ("--peers.0.nothing_like_it=1", "unknown key 'peers.0.nothing_like_it'"),
    ],
)
def test_hints_name_keys_that_exist(word, expected):
    message = fault(word).removeprefix("a.yaml: ")
    assert message == expected
    if "mean" in message:
        key = message.partition("mean '")[2].removesuffix("'?")
        # The key exists: a value of a wrong kind is the fault then, not the key.
        assert f"'{key}': " in fault(f"--{key}={{a: 1}}") or f"unknown key '{key}.a'" in fault(f"--{key}={{a: 1}}")


def test_a_word_changes_its_own_key_alone():
    """Parts of a file that an alias repeats are one object in Python."""
    alias = {"epochs": 1}
    settings = {"a": alias, "b": [alias, 3]}
    assert override(settings, ["--a.epochs", "2", "--b.1=4"]) == {"a": {"epochs": 2}, "b": [{"epochs": 1}, 4]}
    assert settings == {"a": {"epochs": 1}, "b": [{"epochs": 1}, 3]}


def test_files_that_extend_each_other_through_folders(tmp_path):
    (tmp_path / "conf").mkdir()
    for name, base in {"a": "../conf/b.yaml", "b": "../conf/../conf/c.yaml", "c": "../conf/a.yaml"}.items():
        (tmp_path / "conf" / f"{name}.yaml").write_text(f"extends: {base}\n")
    with pytest.raises(SepmlError) as caught:
        read_yaml(tmp_path / "conf" / "a.yaml")
    names = " -> ".join(str(tmp_path / "conf" / f"{name}.yaml") for name in "bca")
    assert (
        str(caught.value)
        == f"{tmp_path / 'conf' / 'a.yaml'}: extends itself: {names}; one of these files must stand on its own"
    )


def test_a_ring_through_a_link_is_found_and_long_ones_are_cut_short(tmp_path):
    for n in range(30):
        (tmp_path / f"{n}.yaml").write_text(f"extends: link/{(n + 1) % 30}.yaml\n")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(SepmlError, match=r"0\.yaml: extends itself: .* -> \.\.\. -> ") as caught:
        read_yaml(tmp_path / "0.yaml")
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("base", ["3", "[a]", "''", "'" + "a" * 300 + "'", '"a\\0b"'])
def test_what_no_file_can_be_called_is_not_extended(base, tmp_path):
    (tmp_path / "a.yaml").write_text(f"extends: {base}\n")
    with pytest.raises(SepmlError, match=r"a\.yaml:"):
        read_yaml(tmp_path / "a.yaml")


NO_VALUES = (
    ": a number of 5,000 digits",
    "fit.epochs 2001-99-99: '2001-99-99' is no date",
    "'x' is no whole number",
    "nested more than 64 deep",
    "the key 'epochs' stands in line 1 already",
    "text with a NUL",
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seed", "9" * 5000], NO_VALUES[0]),
        (["--fit.epochs", "2001-99-99"], NO_VALUES[1]),
        (["--fit.epochs", "!!int x"], NO_VALUES[2]),
        (["--fit.epochs", "[" * 3000], NO_VALUES[3]),
        (["--fit", "{epochs: 1, epochs: 2}"], NO_VALUES[4]),
        (["--data.train", '"a\\0b"'], NO_VALUES[5]),
        (["--data.train", "a" * 300], "'data.train': the path 'aaa"),
        (["--data.root", "a/" * 3000], "is too long for a file"),
        (["--seed", str(2**64)], "'seed': input should be less than or equal to 18446744073709551615"),
        (["--peers.0.hidden", "1000000000"], "'peers.0.hidden': input should be less than or equal to 65536"),
        (["--peers.0.blocks", "1000000"], "'peers.0.blocks': input should be less than or equal to 100"),
        (["--peers.0.hidden", "4000", "--peers.0.window", "16"], "peers: model 'dprnn' would have "),
        (["--peers.0.chunk", "60000", "--peers.0.chunk_stride", "1"], "peers: model 'dprnn': a layer would have "),
        (["--data.segment", "1e300"], "'data.segment': input should be less than or equal to 3600"),
        (["--data.batch_size", "100000000"], "samples, at most 268,435,456 are allowed"),
        (["--data.workers", "100000"], "'data.workers': input should be less than or equal to 512"),
        (["--peers", f"[{', '.join(['{kind: dprnn}'] * 65)}]"], "'peers': list should have at most 64 items"),
    ],
)
def test_a_training_that_cannot_be_is_one_line(words, expected, tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("data: {train: tr.csv, valid: cv.csv}\npeers: [{kind: dprnn}]\n")
    try:
        code = main(["train", "--config", str(tmp_path / "a.yaml"), "--exp", str(tmp_path / "exp"), *words])
    except SystemExit as error:
        code = error.code
    line = capsys.readouterr().err.splitlines()[-1]
    # A word that is no value at all is wrong usage; one that the file could hold as well is not.
    assert code == (2 if expected in NO_VALUES else 1)
    assert line.startswith(("sepml: error: ", "sepml train: error: ")) and expected in line and len(line) < 600
    assert not Path(tmp_path / "exp" / "config.yaml").exists()


def test_peers_that_do_not_fit_into_the_machine_together(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sepml.training.hardware._memory", lambda: 20_000_000)
    (tmp_path / "a.yaml").write_text("data: {train: tr.csv, valid: cv.csv}\npeers: [{kind: dprnn}, {kind: dprnn}]\n")
    assert main(["train", "--config", str(tmp_path / "a.yaml"), "--exp", str(tmp_path / "exp")]) == 1
    assert "peers: the weights of 2 networks take 0.0288 GB in training, this machine has 0.02" in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()


def test_the_largest_seed_draws_weights_and_small_ones_draw_what_they_drew():
    def build(size: int) -> nn.Module:
        return nn.Linear(size, size)

    drawn = [fresh_networks([3, 3], build, seed) for seed in (7, 2**64 - 1)]
    torch.manual_seed(7_001)
    assert torch.equal(drawn[0][1].weight, nn.Linear(3, 3).weight)
    assert not torch.equal(drawn[1][0].weight, drawn[1][1].weight)
