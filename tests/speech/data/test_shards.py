"""Shards: what WebDataset reads, the bytes of the files, every mixture exactly once an epoch, and one line a fault."""

import io
import json
import os
import socket
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from loading_data import settings
from noise_corpus import COUNT, RATE, corpus, refusal

from sepml.cli import main
from sepml.speech.data.loaders import train_loader, valid_loader
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.segments import Segments, read_example
from sepml.speech.data.shards import open_shards
from sepml.speech.data.write_shards import write_shards
from sepml.system.stamp import file_digest

SIZE = 4


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def sharded(manifest) -> Path:
    write_shards(manifest, manifest.parent / "shards", SIZE, jobs=2)
    return manifest.parent / "shards"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# What is written


def test_the_members_are_the_files_byte_for_byte(manifest, sharded):
    mixtures = read_manifest(manifest)
    tars = sorted(sharded.glob("*.tar"))
    assert [tar.name for tar in tars] == [f"shard-{n:06}.tar" for n in range(-(-COUNT // SIZE))]
    members = [(member.name, tar.extractfile(member).read()) for tar in map(tarfile.open, tars) for member in tar]
    expected = []
    for n, m in enumerate(mixtures):
        facts = {"id": m.id, "length": m.length, "sample_rate": RATE, "n_src": 2}
        expected.append((f"{n:09}.json", facts))
        parts = {"mix": m.mixture, "s1": m.sources[0], "s2": m.sources[1]} | ({"noise": m.noise} if m.noise else {})
        expected += [(f"{n:09}.{part}{file.suffix}", file.read_bytes()) for part, file in parts.items()]
    assert [(name, json.loads(data) if name.endswith("json") else data) for name, data in members] == expected


def test_webdataset_finds_the_same_ids_and_samples(manifest, sharded):
    webdataset = pytest.importorskip("webdataset")
    found = {}
    for sample in webdataset.WebDataset(sorted(map(str, sharded.glob("*.tar"))), shardshuffle=False):
        audio = {key.split(".")[0]: data for key, data in sample.items() if key.endswith((".wav", ".flac"))}
        found[json.loads(sample["json"])["id"]] = [soundfile.read(io.BytesIO(audio[p]))[0] for p in ("mix", "s1", "s2")]
    mixtures = read_manifest(manifest)
    assert list(found) == [m.id for m in mixtures]
    for mixture in mixtures:
        for heard, file in zip(found[mixture.id], (mixture.mixture, *mixture.sources), strict=True):
            assert np.array_equal(heard, soundfile.read(file)[0])


def test_what_is_read_is_what_soundfile_reads(manifest, sharded):
    shards = open_shards(sharded)
    assert len(shards) == COUNT and shards.n_src == 2 and shards.bounds.tolist() == [*range(0, COUNT, SIZE), COUNT]
    assert shards == open_shards(sharded / "shards.csv")
    for entry, mixture in zip(shards, read_manifest(manifest), strict=True):
        example = read_example(entry, RATE)
        assert example.id == mixture.id and entry.length == mixture.length == len(example.mixture)
        for signal, file in zip((example.mixture, *example.sources), (mixture.mixture, *mixture.sources), strict=True):
            assert np.array_equal(signal, soundfile.read(file, dtype="float32")[0])


def test_the_bytes_depend_on_neither_the_jobs_nor_the_time(manifest, sharded, tmp_path):
    write_shards(manifest, tmp_path / "alone", SIZE, jobs=1)
    assert content(tmp_path / "alone") == content(sharded)


def test_an_interrupted_run_goes_on_and_whole_shards_are_kept(manifest, sharded, tmp_path):
    out = tmp_path / "out"
    write_shards(manifest, out, SIZE, jobs=1)
    for name, data in (("shard-000003.tar", b""), ("shard-000005.tar", (out / "shard-000005.tar").read_bytes()[:9000])):
        (out / name).write_bytes(data)
    (out / "shard-000001.tar").unlink()
    (out / "shards.csv").unlink()
    before = {file.name: file.stat().st_ino for file in out.glob("*.tar")}
    write_shards(manifest, out, SIZE, jobs=1)
    assert content(out) == content(sharded)
    kept = [name for name, inode in before.items() if (out / name).stat().st_ino == inode]
    assert len(kept) == 8 and not {"shard-000001.tar", "shard-000003.tar", "shard-000005.tar"} & {*kept}


# Training from shards


def epochs_of(data: Path, where: tuple[int, int] = (0, 1), epochs: int = 2, **changes) -> list[list[tuple[str, ...]]]:
    """The ids of the batches of some epochs."""
    loader = train_loader(settings(data, **changes), 2, 0, *where)
    found = []
    for epoch in range(epochs):
        loader.batch_sampler.epoch = epoch
        found.append([batch.ids for batch in loader])
        assert len(found[-1]) == len(loader)
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_mixture_exactly_once_an_epoch_with_any_number_of_workers(manifest, sharded, workers):
    found = epochs_of(sharded, workers=workers)
    ids = sorted(m.id for m in read_manifest(manifest))
    assert [sorted(id for batch in epoch for id in batch) for epoch in found] == [ids, ids]
    assert found[0] != found[1] and found == epochs_of(sharded)


@pytest.mark.parametrize("data", ["tr.csv", "shards"])
def test_two_processes_share_every_mixture_out_exactly_once(manifest, sharded, data):
    shares = [epochs_of(manifest.parent / data, (rank, 2), workers=rank) for rank in (0, 1)]
    ids = {m.id: 1 for m in read_manifest(manifest)}
    for epoch in (0, 1):
        assert Counter(id for share in shares for batch in share[epoch] for id in batch) == ids
        assert len(shares[0][epoch]) == len(shares[1][epoch])


def two_processes(rank: int, port: int, data: Path, out: Path) -> None:
    """One of two processes of a real run; at the end each knows the ids of both."""
    group = torch.distributed
    group.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found: list = [None, None]
    group.all_gather_object(found, epochs_of(data, (group.get_rank(), group.get_world_size()), workers=2))
    group.destroy_process_group()
    (out / f"{rank}.json").write_text(json.dumps(found))


def test_two_real_processes_with_two_workers_each(manifest, sharded, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(two_processes, (port, sharded, tmp_path), nprocs=2, start_method="fork")
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    for epoch in (0, 1):
        used = Counter(id for share in one for batch in share[epoch] for id in batch)
        assert used == {m.id: 1 for m in read_manifest(manifest)}


def test_a_process_reads_few_shards(tmp_path):
    manifest = corpus(tmp_path, 40)
    write_shards(manifest, tmp_path / "shards", 1, jobs=1)
    shards = {entry.id: entry.shard for entry in open_shards(tmp_path / "shards")}
    read = [{shards[id] for batch in epochs_of(tmp_path / "shards", (rank, 2), 1)[0] for id in batch} for rank in (0, 1)]
    assert not read[0] & read[1] and len(read[0]) == len(read[1]) == 20


def test_segments_are_those_of_the_manifest(manifest, sharded):
    from_files, from_shards = (Segments(data, 800, RATE, 5) for data in (read_manifest(manifest), open_shards(sharded)))
    for place in [(epoch, index) for epoch in (0, 3) for index in range(COUNT)]:
        a, b = from_files[place], from_shards[place]
        assert a.id == b.id and np.array_equal(a.mixture, b.mixture) and np.array_equal(a.sources, b.sources)


def test_validation_is_that_of_the_manifest(manifest, sharded):
    for rank in (0, 1):
        pairs = zip(valid_loader(settings(manifest), 2, rank, 2), valid_loader(settings(sharded), 2, rank, 2), strict=True)
        assert all(a.ids == b.ids and torch.equal(a.mixture, b.mixture) for a, b in pairs)


# Faults


def test_a_folder_of_other_shards_is_refused(manifest, sharded, tmp_path):
    other = "choose another folder or delete it"
    assert refusal(write_shards, manifest, sharded, 5) == f"{sharded}: holds shards with size = 4, now 5; {other}"
    (manifest.parent / "few.csv").write_text("".join(manifest.read_text().splitlines(True)[:9]))
    said = refusal(write_shards, manifest.parent / "few.csv", sharded, SIZE)
    digests = [file_digest(file, 16) for file in (manifest, manifest.parent / "few.csv")]
    assert said == f"{sharded}: holds shards with manifest = {digests[0]}, now {digests[1]}; {other}"
    (tmp_path / "shard-000000.tar").touch()
    assert "holds 'shard-000000.tar' but not the .settings.json of shards" in refusal(write_shards, manifest, tmp_path, SIZE)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("s1", lambda file: file.unlink(), "there is no file"),
        ("noise", lambda file: file.unlink(), "no such file"),
        ("mix", lambda file: soundfile.write(file, np.zeros(900), 16000), "its rate is 16000 Hz, expected 8000 Hz"),
        ("s2", lambda file: soundfile.write(file, np.zeros(900), RATE), r"900 samples, the manifest says"),
        ("s2", lambda file: file.write_bytes(file.read_bytes()[:-20]), "breaks off, 20 bytes of samples are missing"),
        ("s2", lambda file: soundfile.write(file, np.zeros((900, 2)), RATE), "has 2 channels, expected 1"),
    ],
)
def test_a_faulty_file_is_one_line_and_no_index(tmp_path, capsys, part, change, message):
    manifest = corpus(tmp_path, 4)
    file = next((tmp_path / part).glob("a03*.wav"))
    change(file)
    assert main(["shard", "-q", str(manifest), str(tmp_path / "out"), "--size", "2", "-j1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sepml: error: ") and said.count("\n") == 1
    assert str(file) in said and message in said
    assert not list(tmp_path.glob("out/shards.csv")) and not list(tmp_path.glob("out/shard-000001.tar"))
    assert not list(tmp_path.glob("out/.shard*"))


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    manifest, out = corpus(tmp_path, 4), tmp_path / "out"

    def refuse(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as full:
        full.setattr(tarfile.TarFile, "addfile", refuse)
        assert main(["shard", "-q", str(manifest), str(out), "--size", "2", "-j1"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no space left on the disk" in said
    assert not [file.name for file in out.iterdir() if not file.name.startswith((".settings", ".made."))]
    assert main(["shard", "-q", str(manifest), str(out), "--size", "2", "-j1"]) == 0
    assert capsys.readouterr().out == f"{out}/shards.csv\n" and len(open_shards(out)) == 4
