"""Who listens to what: a generated community with known factors, or a folder of interactions; features of the songs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows

MODALITIES = ("lyrics", "audio", "visual")
Modality = Literal["lyrics", "audio", "visual"]
_FACTORS = 12
# Which of the factors each modality shows, how many numbers it has and how noisy they are: none shows all that counts.
_VIEWS = {"lyrics": (slice(0, 6), 16, 0.6), "audio": (slice(3, 9), 24, 0.4), "visual": (slice(6, 12), 12, 0.8)}
_SHARP = 0.7
_OWN_FRIENDS = 0.8
# Of a user's songs: for tests, and for validation.
_HELD_OUT = (0.2, 0.1)
_FEWEST = 5
_MOST_PAIRS = 50_000_000
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ListeningSettings:
    """The listening of an experiment, and how it becomes batches.

    Attributes:
        kind: `generated`: a community with known factors, drawn by the experiment's seed. `folder`: tables in `root`, see
            `read_listening`.
        root: folder of the tables.
        users, songs, communities: of `generated`: their numbers.
        listens, friends: of `generated`: how many songs and friends each user has.
        missing: the part of the songs' modalities whose features are taken away, for training and test; each song keeps one.
        social: whether friends are neighbours in the graph.
        batch_size: interactions for each step.
    """

    kind: Literal["generated", "folder"] = "generated"
    root: Path = Path(".")
    users: Annotated[int, Field(ge=2, le=100_000)] = 200
    songs: Annotated[int, Field(ge=10, le=100_000)] = 300
    communities: Annotated[int, Field(ge=1, le=1000)] = 6
    listens: Annotated[int, Field(ge=_FEWEST, le=10_000)] = 20
    friends: Annotated[int, Field(ge=0, le=1000)] = 5
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    social: bool = True
    batch_size: Annotated[int, Field(ge=1)] = 512


class Listening(NamedTuple):
    """Interactions and friendships, users and songs numbered from 0.

    Attributes:
        users: their names. songs: their number.
        train, valid, test: `(N, 2)`, user and song. social: `(E, 2)`, pairs of users.
        features: modality -> `(songs, D)`; nan where a song has none.
    """

    users: tuple[str, ...]
    songs: int
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    social: np.ndarray
    features: Mapping[str, np.ndarray]


def listening_of(settings: ListeningSettings, seed: int) -> Listening:
    """The listening of an experiment, with features taken away.

    Raises:
        SepmlError: see `read_listening` and `generate_listening`.
    """
    found = read_listening(settings.root, seed) if settings.kind == "folder" else generate_listening(settings, seed)
    taken = _taken_away(found.features, settings.missing, np.random.default_rng([seed, 11]))
    return found._replace(features=taken, social=found.social if settings.social else found.social[:0])


def generate_listening(settings: ListeningSettings, seed: int) -> Listening:
    """A community whose users listen to songs near them in a space of factors, of which each modality shows a part.

    Users lie about the centre of their community, songs anywhere; a user's songs are drawn without replacement with
    probabilities `softmax(0.7 <user, song>)`; four of five friends are of the same community.

    Raises:
        SepmlError: more listens or friends than there are songs or users, or too many of both.
    """
    _require_small(settings.users, settings.songs, "data")
    if settings.listens > settings.songs:
        raise SepmlError(f"data.listens is {settings.listens}, expected at most the {settings.songs} songs")
    if settings.friends >= settings.users:
        raise SepmlError(f"data.friends is {settings.friends}, expected less than the {settings.users} users")
    rng = np.random.default_rng([seed, 10])
    centres = rng.standard_normal((settings.communities, _FACTORS))
    belongs = rng.integers(0, settings.communities, settings.users)
    users = centres[belongs] + 0.6 * rng.standard_normal((settings.users, _FACTORS))
    songs = rng.standard_normal((settings.songs, _FACTORS))
    # Gumbel noise on the logits draws without replacement.
    liking = _SHARP * users @ songs.T + rng.gumbel(size=(settings.users, settings.songs))
    chosen = np.argsort(-liking, axis=1)[:, : settings.listens]
    pairs = np.stack([np.repeat(np.arange(settings.users), settings.listens), chosen.ravel()], 1)
    features = {
        name: songs[:, part] @ rng.standard_normal((part.stop - part.start, size)) / np.sqrt(part.stop - part.start)
        + noise * rng.standard_normal((settings.songs, size))
        for name, (part, size, noise) in _VIEWS.items()
    }
    names = tuple(f"user{n}" for n in range(settings.users))
    social = _friends(belongs, settings.friends, rng)
    return Listening(names, settings.songs, *_split(pairs, settings.users, rng), social, features)


def _friends(belongs: np.ndarray, friends: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of users, most of them of one community, `(E, 2)`."""
    pairs = []
    for user, community in enumerate(belongs):
        others = np.flatnonzero(np.arange(len(belongs)) != user)
        own = others[belongs[others] == community]
        for _ in range(friends):
            near = len(own) and rng.random() < _OWN_FRIENDS
            pairs.append((user, int(rng.choice(own if near else others))))
    return np.array(pairs, np.int64).reshape(-1, 2)


def read_listening(root: Path, seed: int) -> Listening:
    """The tables of a folder: `interactions.csv` (user, song), `social.csv` (user, friend), which may be absent, and
    `lyrics.csv`, `audio.csv`, `visual.csv` (song, then numbers), of which one or more are there; a song without features of a
    modality has no row, and rows of other songs are passed over.

    Args:
        seed: of the split into training, validation and test.

    Raises:
        SepmlError: a table is absent, damaged or has a song twice; a friend is not in the interactions; a user has fewer than
            five songs; there are too many users and songs.
    """
    file = root / "interactions.csv"
    rows = [(row["user"], row["song"]) for _, row in read_rows(file, "table of interactions", ("user", "song"))]
    if not rows:
        raise SepmlError(f"{file}: holds no interactions")
    users, songs = (sorted({pair[place] for pair in rows}) for place in (0, 1))
    at_user, at_song = ({name: n for n, name in enumerate(names)} for names in (users, songs))
    pairs = np.unique(np.array([(at_user[user], at_song[song]) for user, song in rows], np.int64).reshape(-1, 2), axis=0)
    counts = np.bincount(pairs[:, 0])
    if counts.min() < _FEWEST:
        fewest = users[int(counts.argmin())][:80]
        raise SepmlError(f"{file}: songs of user '{fewest}': {counts.min()}, expected {_FEWEST} or more")
    _require_small(len(users), len(songs), str(file))
    features = {name: _features(table, at_song) for name in MODALITIES if (table := root / f"{name}.csv").exists()}
    if not features:
        expected = ", ".join(f"{name}.csv" for name in MODALITIES)
        raise SepmlError(f"{root}: holds no features of songs, expected one or more of {expected}")
    split = _split(pairs, len(users), np.random.default_rng([seed, 10]))
    return Listening(tuple(users), len(songs), *split, _social(root / "social.csv", at_user), features)


def _require_small(users: int, songs: int, source: str) -> None:
    """Refuse more pairs of a user and a song than the tables of all pairs can hold in memory."""
    if users * songs > _MOST_PAIRS:
        found = f"{users:,} users and {songs:,} songs are {users * songs:,} pairs"
        raise SepmlError(f"{source}: {found}, expected at most {_MOST_PAIRS:,}")


def _features(file: Path, at_song: Mapping[str, int]) -> np.ndarray:
    found: dict[str, list[float]] = {}
    for line, row in read_rows(file, "table of features", ("song",)):
        name = row.pop("song")
        if not row:
            raise SepmlError(f"{file}: has the column 'song' alone, expected columns of numbers beside it")
        if name in found:
            raise SepmlError(f"{file}:{line}: song '{name[:80]}' stands twice")
        found[name] = [_feature(text, f"{file}:{line}: {column[:80]}") for column, text in row.items()]
    if not found.keys() & at_song.keys():
        raise SepmlError(f"{file}: has features of none of the songs in interactions.csv")
    features = np.full((len(at_song), len(next(iter(found.values())))), np.nan)
    for name in found.keys() & at_song.keys():
        features[at_song[name]] = found[name]
    return features


def _feature(text: str, where: str) -> float:
    """A number, which 32-bit floats hold."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not abs(value) <= _LARGEST:
        raise SepmlError(f"{where} is '{text[:80]}', expected a finite number")
    return value


def _social(file: Path, at_user: Mapping[str, int]) -> np.ndarray:
    if not file.exists():
        return np.zeros((0, 2), np.int64)
    pairs = []
    for line, row in read_rows(file, "table of friendships", ("user", "friend")):
        for name in (row["user"], row["friend"]):
            if name not in at_user:
                raise SepmlError(f"{file}:{line}: '{name[:80]}' listens to nothing in interactions.csv")
        if row["user"] == row["friend"]:
            raise SepmlError(f"{file}:{line}: '{row['user'][:80]}' stands as a friend of their own")
        pairs.append((at_user[row["user"]], at_user[row["friend"]]))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _split(pairs: np.ndarray, users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test interactions: some of each user's songs, one or more."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for user in range(users):
        own = rng.permutation(pairs[pairs[:, 0] == user])
        first, second = np.cumsum([max(1, round(part * len(own))) for part in _HELD_OUT])
        for part, rows in zip(parts, (own[second:], own[first:second], own[:first]), strict=True):
            part.append(rows)
    train, valid, test = (np.concatenate(rows) for rows in parts)
    return train, valid, test


def _taken_away(features: Mapping[str, np.ndarray], missing: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The features without a part of them, nan; each song keeps one of those that it has."""
    names = [*features]
    there = np.stack([~np.isnan(features[name]).any(1) for name in names])
    kept = there & (rng.random(there.shape) >= missing)
    order = rng.random(there.shape)
    last = np.where(there, order, -1.0).argmax(0)
    alone = np.flatnonzero(~kept.any(0) & there.any(0))
    kept[last[alone], alone] = True
    return {name: np.where(kept[n][:, None], features[name], np.nan) for n, name in enumerate(names)}
