"""Shards and indices that are absent, broken off or of other mixtures are refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
from loading_data import settings
from noise_corpus import RATE, corpus, refusal

from sepml.speech.data.loaders import train_loader
from sepml.speech.data.segments import read_example
from sepml.speech.data.shards import open_shards
from sepml.speech.data.write_shards import write_shards


@pytest.fixture
def few(tmp_path) -> Path:
    write_shards(corpus(tmp_path, 6), tmp_path / "out", 2, jobs=1)
    return tmp_path / "out"


def test_absent_and_truncated_shards(few):
    whole = (few / "shard-000001.tar").read_bytes()
    (few / "shard-000001.tar").write_bytes(whole[:9000])
    assert refusal(open_shards, few).startswith(f"{few}/shard-000001.tar: breaks off after 9000 of ")
    (few / "shard-000001.tar").unlink()
    assert refusal(open_shards, few).startswith(f"{few}/shard-000001.tar: no such shard, {few}/shards.csv names it")
    # Those that go while training.
    (few / "shard-000001.tar").write_bytes(whole)
    shards = open_shards(few)
    (few / "shard-000001.tar").write_bytes(whole[:9000])
    assert (
        refusal(read_example, shards[3], RATE)
        == f"{few}/shard-000001.tar: breaks off in '{shards[3].id}'; copy or make it again"
    )
    (few / "shard-000001.tar").unlink()
    assert "shard-000001.tar: cannot be read: No such file or directory" in refusal(read_example, shards[3], RATE)
    (few / "shards.csv").unlink()
    assert refusal(open_shards, few) == f"{few}/shards.csv: no such index of shards"


@pytest.mark.parametrize("shift", [512, 1536, 100])
def test_an_index_that_does_not_fit(few, shift):
    lines = (few / "shards.csv").read_text().splitlines(True)
    id, shard, offset, size, length = lines[1].split(",")
    # The first mixture is looked for at opening, the others when they are read.
    (few / "shards.csv").write_text("".join([lines[0], f"{id},{shard},{int(offset) + shift},{size},{length}", *lines[2:]]))
    said = refusal(open_shards, few)
    assert said.startswith(f"{few}/shard-000000.tar: holds no mixture '{id}' at byte {shift}; the index shards.csv is of other")
    other = lines[4].split(",")[0]
    (few / "shards.csv").write_text("".join([*lines[:3], lines[3].replace(lines[3].split(",")[0], "else"), *lines[4:]]))
    shards = open_shards(few)
    assert read_example(shards[3], RATE).id == other
    assert "shard-000001.tar: holds no mixture 'else' at byte 0; " in refusal(read_example, shards[2], RATE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("shard,offset", "offset,shard"), "shards.csv:1: the header is mixture_ID,offset,shard"),
        (lambda text: "", "shards.csv: names no mixtures"),
        (lambda text: text.splitlines()[0], "shards.csv: names no mixtures"),
        (lambda text: text.replace("tar,0,", "tar,-1,"), "shards.csv:2: 'a00_0.0_b00_-0.0,shard-000000.tar,-1,"),
        (lambda text: text + text.splitlines()[1], "shards.csv:8: duplicate id 'a00_0.0_b00_-0.0', which is already in line 2"),
        (lambda text: text + "x,shard-000000.tar,0,1", "shards.csv:8: 'x,shard-000000.tar,0,1', expected mixture_ID,"),
    ],
)
def test_a_faulty_index(few, change, message):
    (few / "shards.csv").write_text(change((few / "shards.csv").read_text()))
    assert message in refusal(open_shards, few)


def test_other_rates_lengths_and_numbers_of_sources(few):
    shards = open_shards(few)
    where = f"{few}/shard-000000.tar: mix of '{shards[1].id}'"
    assert refusal(read_example, shards[1], 16000) == f"{where}: its rate is 8000 Hz, expected 16000 Hz"
    longer = replace(shards[1], length=shards[1].length + 1)
    assert f"{where} has {shards[1].length} samples, the index says" in refusal(read_example, longer, RATE)
    assert f"{few}: mixtures of 2 sources, the model separates 3" in refusal(train_loader, settings(few), 3, 0)
