"""Writing of the mixtures of a manifest into shards, tar files that WebDataset can read, with an index."""

import io
import json
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import AudioInfo, file_stamp, info, require_header
from sepml.speech.data.manifest import Manifest, read_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.data.shards import HEADER, INDEX
from sepml.system.archives import MOST_MIXTURE_BYTES, NotTar, headers_of
from sepml.system.files import atomic_path, write_csv, write_text
from sepml.system.parallel import Failure, map_unordered
from sepml.system.stamp import claim_noted, digest_of, file_digest, note_settings


@dataclass(frozen=True)
class _Shard:
    """A shard to be made: its file, and the number of its first mixture, which is the key of that mixture."""

    target: Path
    first: int
    mixtures: Manifest


def write_shards(manifest: Path, out: Path, size: int = 1000, jobs: int = 0, moved_to: Path | None = None) -> Path:
    """Write the mixtures of a manifest to `out/shard-000000.tar` and so on, and then the index `out/shards.csv`.

    A mixture consists of the consecutive members `<key>.json` (id, length, sample_rate, n_src, and how many sources at the
    end are silent, if any), `<key>.mix.wav`, `<key>.s1.wav` and so on for the others, and `<key>.noise.wav` if the manifest
    names it, with the unchanged bytes of the files. The key is the number of the mixture, as ids contain dots, at which
    WebDataset's keys end. The same files give the same bytes. Existing
    shards whose files have not changed are kept, so an interrupted run is resumed.

    Args:
        size: mixtures per shard; the last one may have fewer.
        jobs: processes, 0 = all cores. The files do not depend on it.
        moved_to: see `sepml.speech.data.manifest.read_manifest`.

    Returns:
        the index.

    Raises:
        SepmlError: a file is missing, is not audio, or has another rate than the first or another length than the
            manifest says; `out` was begun with another manifest or size; or the disk is full.
    """
    mixtures, out = read_manifest(manifest, moved_to), Path(out)
    settings = {"manifest": file_digest(Path(manifest)), "size": size}
    if claim_noted(out, "shards", settings, "shard-*.tar") == "replace":
        note_settings(out, settings)
    plan = [_Shard(out / f"shard-{n // size:06}.tar", n, mixtures[n : n + size]) for n in range(0, len(mixtures), size)]
    work = partial(_make, sample_rate=info(mixtures[0].mixture).rate)
    places: dict[Path, np.ndarray] = {}
    faults: list[str] = []
    for done in map_unordered(work, plan, jobs, f"sharding {manifest.stem}"):
        if isinstance(done, Failure):
            faults.append(done.message)
        else:
            places[done[0]] = done[1]
    if faults:
        raise SepmlError(f"{len(faults)} of {len(plan)} shards could not be made; the first: {min(faults)}")
    rows = (
        [job.mixtures.fields(n)[mixtures.columns[0]], job.target.name, offset, end - offset, int(job.mixtures.lengths[n])]
        for job in plan
        for n, (offset, end) in enumerate(places[job.target].tolist())
    )
    write_csv(out / INDEX, HEADER, rows)
    return out / INDEX


def _make(job: _Shard, sample_rate: int) -> tuple[Path, np.ndarray]:
    """Make a shard unless it can be kept; returns its file and where its mixtures begin and end, `(len(mixtures), 2)` bytes."""
    made_of, note = _made_of(job), job.target.with_name(f".made.{job.target.stem}")
    # Shards of earlier versions have no note.
    if note.is_file() and note.read_text(encoding="utf-8") != made_of:
        job.target.unlink(missing_ok=True)
        note.unlink()
    places = _kept(job)
    if places is not None:
        return job.target, places
    places = np.zeros((len(job.mixtures), 2), np.int64)
    # Written before the shard: if a run is killed between the two, the shard is made again.
    write_text(note, made_of)
    with atomic_path(job.target) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for n, mixture in enumerate(job.mixtures):
            places[n, 0] = tar.offset
            facts = {"id": mixture.id, "length": mixture.length, "sample_rate": sample_rate, "n_src": job.mixtures.n_src}
            if silent := job.mixtures.n_src - len(mixture.sources):
                facts["silent"] = silent
            _add(tar, f"{job.first + n:09}.json", json.dumps(facts, ensure_ascii=False).encode())
            for name, file in _files(mixture, job.first + n).items():
                frames = _required(file, sample_rate).frames
                if frames != mixture.length:
                    raise SepmlError(f"{file}: {frames} samples, the manifest says {mixture.length}; make it again")
                _add(tar, name, file.read_bytes())
            places[n, 1] = tar.offset
            if tar.offset - places[n, 0] > MOST_MIXTURE_BYTES:
                raise SepmlError(f"{mixture.mixture}: too long for a shard with its sources: {MOST_MIXTURE_BYTES:,} bytes")
    return job.target, places


def _made_of(job: _Shard) -> str:
    """A digest of the files in a shard and of their stamps, which change when a file is written again."""
    return digest_of(
        repr((mixture.id, name, file_stamp(file)))
        for n, mixture in enumerate(job.mixtures)
        for name, file in _files(mixture, job.first + n).items()
    )


def _kept(job: _Shard) -> np.ndarray | None:
    """Where the mixtures of a shard begin and end; None if it is absent or incomplete."""
    try:
        there = headers_of(job.target)
    except (OSError, NotTar):
        return None
    places = []
    expected = 0
    for n, mixture in enumerate(job.mixtures):
        files = _files(mixture, job.first + n)
        names = [f"{job.first + n:09}.json", *files]
        expected += len(names)
        if any(name not in there for name in names):
            return None
        if any(not file.is_file() or file.stat().st_size != there[name].size for name, file in files.items()):
            return None
        last = there[names[-1]]
        places.append((there[names[0]].offset, last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE))
    return np.array(places, np.int64) if expected == len(there) else None


def _files(mixture: Mixture, key: int) -> dict[str, Path]:
    """The audio files of a mixture by their names in the shard."""
    parts = {"mix": mixture.mixture} | {f"s{n + 1}": file for n, file in enumerate(mixture.sources)}
    if mixture.noise:
        parts["noise"] = mixture.noise
    return {f"{key:09}.{part}{file.suffix}": file for part, file in parts.items()}


def _required(file: Path, sample_rate: int) -> AudioInfo:
    facts = info(file)
    require_header(file, facts, sample_rate)
    return facts


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # A new TarInfo has time 0, owner 0 and no names of owners.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
