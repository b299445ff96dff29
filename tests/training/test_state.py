"""The state of a run: its checksum, the state before it as a fallback, and states that are none."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import history, same_state, state_of, train, write_config, write_data

from sepml.errors import SepmlError
from sepml.training.checkpoint import RunState, load_state, save_state


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("state")
    return write_config(root / "config.yaml", write_data(root / "data"))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """A run of two epochs."""
    exp = tmp_path_factory.mktemp("whole") / "exp"
    assert train(config, exp) == 0
    return exp


def copied(whole: Path, exp: Path, *names: str) -> Path:
    """A folder with some files of a run, all of them by default."""
    for file in whole.rglob("*"):
        if file.is_file() and (not names or file.name in names):
            target = exp / file.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return exp


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


# Damage.


def test_no_flipped_bit_of_a_state_goes_unnoticed(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(20, generator=generator), "b": torch.zeros(3)}
    first, second = (RunState(n, [weights], [{"state": {}, "param_groups": []}], [], [0]) for n in (1, 2))
    save_state(tmp_path, first)
    save_state(tmp_path, second)
    last = tmp_path / "last.ckpt"
    content = last.read_bytes()
    bits = torch.randint(len(content) * 8, (300,), generator=generator).tolist()
    # Those of the end of the archive and of the checksum itself as well.
    for bit in [*bits, *range(len(content) * 8 - 900, len(content) * 8, 7)]:
        flip(last, bit)
        state, reason = load_state(tmp_path)
        assert (state.epoch, reason is not None and reason.startswith("damaged (")) == (1, True), bit
        last.write_bytes(content)
    for length in (0, 1, len(content) // 2, len(content) - 1):
        last.write_bytes(content[:length])
        assert load_state(tmp_path)[0].epoch == 1
    last.write_bytes(content)
    assert load_state(tmp_path) is not None and load_state(tmp_path)[0].epoch == 2 and load_state(tmp_path)[1] is None


def test_a_damaged_state_is_replaced_by_the_one_before_it_and_the_run_ends_the_same(config, whole, tmp_path, capsys):
    exp = copied(whole, tmp_path / "exp")
    flip(exp / "last.ckpt", 8 * 3000)
    assert train(config, exp) == 0
    said = capsys.readouterr().err
    damage = "damaged (its content does not have the checksum in it)"
    assert said == f"{exp / 'last.ckpt'}: {damage}; going on from the state before it, after epoch 1\n"
    assert same_state(state_of(exp), state_of(whole)) and history(exp) == history(whole)
    for peer in ("peer1", "peer2"):
        assert (exp / peer / "model.safetensors").read_bytes() == (whole / peer / "model.safetensors").read_bytes()
    # Whole again, and quiet.
    assert train(config, exp) == 0
    assert capsys.readouterr().err == ""


def test_a_damaged_state_never_takes_the_place_of_the_good_one_before_it(config, whole, tmp_path, capsys, monkeypatch):
    exp = copied(whole, tmp_path / "exp")
    flip(exp / "last.ckpt", 8 * 3000)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("sepml.training.fit.save", interrupted)
        assert train(config, exp) == 130
    assert state_of(exp)["epoch"] == 1
    assert train(config, exp) == 0
    assert same_state(state_of(exp), state_of(whole))


def test_a_state_that_was_moved_away_and_not_yet_replaced_is_found(config, whole, tmp_path, capsys):
    exp = copied(whole, tmp_path / "exp")
    (exp / "last.ckpt").replace(exp / "previous.ckpt")
    assert train(config, exp) == 0
    assert "last.ckpt: absent; going on from the state before it, after epoch 2" in capsys.readouterr().err
    assert same_state(state_of(exp), state_of(whole))
    # And the folder still counts as one in which something was learnt.
    (exp / "last.ckpt").replace(exp / "previous.ckpt")
    assert train(config, exp, "--seed", "7") == 1
    assert "holds a run with seed = 0, now 7" in capsys.readouterr().err


def test_two_damaged_states_are_one_line(config, whole, tmp_path, capsys):
    exp = copied(whole, tmp_path / "exp")
    flip(exp / "last.ckpt", 8 * 3000)
    (exp / "previous.ckpt").write_bytes(b"PK\x03\x04 broken")
    assert train(config, exp) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sepml: error: {exp / 'last.ckpt'}: damaged (") and said.count("\n") == 1
    assert f") and {exp / 'previous.ckpt'}: damaged (" in said and "delete both to train from the start" in said


def test_a_state_of_an_earlier_version_has_no_checksum_and_goes_on(config, whole, tmp_path, capsys):
    exp = copied(whole, tmp_path / "exp", "config.yaml")
    before = torch.load(whole / "previous.ckpt", weights_only=True) | {"format": "sepml-run-1"}
    torch.save(before, exp / "last.ckpt")
    assert train(config, exp) == 0
    assert capsys.readouterr().err == ""
    assert same_state(state_of(exp), state_of(whole))


# States that are whole and none of this run.


def changed(content: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """A copy in which one part is another; `...` leaves it out."""
    content = copy.deepcopy(content)
    *parents, last = where.split(".")
    place: Any = content
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    key = int(last) if last.isdigit() else last
    if value is ...:
        del place[key]
    else:
        place[key] = value(place[key]) if callable(value) else value
    return content


def with_nan(value: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(value.numel()).view(value.shape) == 0, math.nan, value)


def foreign_moments(moments: dict[str, Any]) -> dict[str, Any]:
    """Those of SGD for Adam."""
    return {**moments, "state": {n: {"momentum_buffer": each["exp_avg"]} for n, each in moments["state"].items()}}


HAND_MADE = {
    "no dictionary": (lambda _: [1, 2, 3], "not the state of a run"),
    "a dictionary of something else": (lambda _: {"state_dict": {}}, "not the state of a run"),
    "no epoch": (lambda s: changed(s, "epoch", ...), "'epoch' is missing"),
    "no optimisers": (lambda s: changed(s, "optimizers", ...), "'optimizers' is missing"),
    "something more": (lambda s: s | {"lr": 3}, "unknown key 'lr'"),
    "a negative epoch": (lambda s: changed(s, "epoch", -1), "'epoch': input should be greater than or equal to 0, got -1"),
    "a huge epoch": (lambda s: changed(s, "epoch", 10**18), "'epoch' is 1000000000000000000, but 'history' has no row for"),
    "an epoch that is a truth": (lambda s: changed(s, "epoch", True), "'epoch': input should be a valid integer, got True"),
    "an epoch that is a tensor": (lambda s: changed(s, "epoch", torch.tensor(2)), "a valid integer, got tensor(2)"),
    "an epoch that is nan": (lambda s: changed(s, "epoch", math.nan), "'epoch': input should be a valid integer, got nan"),
    "peers that are a dictionary": (lambda s: changed(s, "peers", {}), "'peers': input should be a valid list, got {}"),
    "a peer too few": (lambda s: changed(s, "peers.1", ...), "'peers' is 1, expected 2 of them"),
    "a peer that is a tensor": (
        lambda s: changed(s, "peers.0", torch.ones(2)),
        "'peers.0': input should be a valid dictionary",
    ),
    "history out of order": (lambda s: changed(s, "history", lambda h: h[::-1]), "'history' has no row for each epoch"),
    "history without scores": (lambda s: changed(s, "history.0.valid_si_snri", ...), "'history.0' has no column valid_*"),
    "history with words": (lambda s: changed(s, "history.0.valid_si_snri", "good"), "'history.0.valid_si_snri' is of type str"),
    "skipped steps that are words": (lambda s: changed(s, "skipped", ["many", 0]), "'skipped.0': input should be a valid"),
    "too few skipped steps": (lambda s: changed(s, "skipped", [0]), "'skipped' is 1, expected 2 of them"),
    "optimisers without state": (lambda s: changed(s, "optimizers.0.state", ...), "'optimizers.0.state' is None"),
    "another optimiser's state": (lambda s: changed(s, "optimizers.1", foreign_moments), "has momentum_buffer, Adam keeps"),
    "moments of another shape": (
        lambda s: changed(s, "optimizers.0.state.0.exp_avg", lambda m: m.flatten()[:1]),
        "'optimizers.0.state.0.exp_avg' is (1,)",
    ),
    "moments that are nan": (lambda s: changed(s, "optimizers.0.state.0.exp_avg_sq", with_nan), "or holds nan"),
    "moments that are words": (lambda s: changed(s, "optimizers.0.state.0.exp_avg", "x"), "is of type str, expected a tensor"),
    "moments of a weight too many": (
        lambda s: changed(s, "optimizers.0.state", lambda m: {**m, 99: m[0]}),
        "'optimizers.0.state.99' is of no weight",
    ),
}


def weight_of(state: dict[str, Any]) -> str:
    return next(name for name, value in state["peers"][0].items() if value.ndim > 1)


def with_weight(state: dict[str, Any], change: Any) -> dict[str, Any]:
    state = copy.deepcopy(state)
    name = weight_of(state)
    state["peers"][0][name] = change(state["peers"][0][name])
    return state


HAND_MADE |= {
    "a weight of another shape": (lambda s: with_weight(s, lambda w: w[:1]), "'peers.0': '"),
    "a weight of whole numbers": (lambda s: with_weight(s, lambda w: w.long()), "is int64 ("),
    "a weight that is complex": (lambda s: with_weight(s, lambda w: w + 0j), "is complex64 ("),
    "a weight that is a word": (lambda s: with_weight(s, lambda _: "heavy"), "is no plain tensor but str"),
    "a weight that is sparse": (lambda s: with_weight(s, lambda w: w.to_sparse()), "is no plain tensor but Tensor"),
    "a weight that is nan": (lambda s: with_weight(s, with_nan), "holds values that are nan or infinite"),
    "a weight that is infinite": (lambda s: with_weight(s, lambda w: w / 0), "holds values that are nan or infinite"),
    "a weight of another name": (lambda s: changed(s, "peers.0", lambda p: {**p, "extra": torch.ones(1)}), "'extra' is "),
}


@pytest.mark.parametrize("what", HAND_MADE)
def test_a_state_that_is_none_of_this_run_is_one_line(what, config, whole, tmp_path, capsys):
    make, message = HAND_MADE[what]
    exp = copied(whole, tmp_path / "exp", "config.yaml", "environment.json")
    content = torch.load(whole / "last.ckpt", weights_only=True) | {"format": "sepml-run-1"}
    torch.save(make(content), exp / "last.ckpt")
    made = (exp / "last.ckpt").read_bytes()
    assert train(config, exp, "--fit.epochs", "3") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sepml: error: {exp / 'last.ckpt'}: not ") and said.count("\n") == 1 and message in said, said
    assert said.endswith("; delete it to train from the start\n")
    assert (exp / "last.ckpt").read_bytes() == made


def test_a_foreign_state_does_not_hide_the_state_before_it(config, whole, tmp_path, capsys):
    exp = copied(whole, tmp_path / "exp")
    torch.save({"format": "sepml-run-1", "epoch": 2}, exp / "last.ckpt")
    assert train(config, exp) == 1
    assert "delete it to go on from previous.ckpt, the state before it" in capsys.readouterr().err
    (exp / "last.ckpt").unlink()
    assert train(config, exp) == 0
    assert same_state(state_of(exp), state_of(whole))


def test_a_foreign_state_behind_a_damaged_one_is_not_what_to_go_on_from(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    torch.save({"format": "sepml-run-1", "epoch": 2}, tmp_path / "previous.ckpt")
    with pytest.raises(SepmlError, match=r"previous\.ckpt: not the state of a run: .*; delete it to train from the start$"):
        load_state(tmp_path)


def test_a_state_that_would_run_code_does_not(tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"format": "sepml-run-1", "epoch": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(SepmlError, match=r"last\.ckpt: damaged .*; delete it to train from the start"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()
