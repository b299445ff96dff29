"""Messages of the library name settings; the commands name the options for them."""

import argparse
import socket
import urllib.request

import numpy as np
import pytest
import soundfile

from sepml.cli import main, make_parser
from sepml.commands.options import with_flags
from sepml.system.stamp import WAY_OUT


def options_of(*words: str) -> argparse.Namespace:
    return make_parser().parse_known_args(words)[0]


def fault(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sepml: error: ") and said.count("\n") == 1 and "`" not in said
    return said


def test_a_tree_of_another_mode(tmp_path, capsys):
    (tmp_path / "wham" / "wav8k" / "max").mkdir(parents=True)
    said = fault(capsys, "prepare", "wham", "--tree", tmp_path / "wham", "--task", "sep_clean", "--out", tmp_path / "out")
    assert said.endswith("choose another --sample-rate or --mode\n")


def test_a_port_that_is_taken(capsys):
    pytest.importorskip("starlette")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = fault(capsys, "serve", "-d", "cpu", "--port", taken.getsockname()[1])
    assert said.endswith("choose another --port\n")


def test_an_archive_whose_address_cannot_be_read(tmp_path, monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    said = fault(capsys, "prepare", "librimix", "--corpus", "mini", "--out", tmp_path / "out")
    assert said.endswith("give the address of the file itself as --url\n")


def test_weights_whose_network_is_unknown(tmp_path, capsys):
    import torch

    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "m.pth")
    assert fault(capsys, "info", tmp_path / "m.pth").endswith("name the network that they are of: --network, --arguments\n")


def test_an_output_whose_name_is_too_long(tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "x.wav", [0.1] * 800, 8000)
    words = ["separate", tmp_path / "x.wav", "-o", tmp_path / "out", "-d", "cpu", "--filename", f"{'a' * 300}_{{n}}.wav"]
    assert fault(capsys, *words).endswith("choose a shorter --filename, or rename the recording\n")


def test_results_of_another_request_may_be_replaced_where_the_command_can():
    message = f"out: holds scores with metrics = sdr; {WAY_OUT}"
    assert with_flags(message, options_of("table", "x")) == f"{message}, or give --force to replace it"
    assert with_flags(message, options_of("info")) == message


def test_log_messages_name_options_too(tmp_path, capsys):
    recording = tmp_path / "two.wav"
    soundfile.write(recording, np.random.default_rng(0).normal(0, 0.1, (2000, 2)), 8000)
    assert main(["separate", str(recording), "--out", str(tmp_path / "out")]) == 0
    assert "two.wav: the mean of its 2 channels is separated (--channel selects one)\n" in capsys.readouterr().err


def test_what_is_no_option_of_the_command_stays():
    assert with_flags("`channel` and `sepml separate`", options_of("info")) == "`channel` and `sepml separate`"
