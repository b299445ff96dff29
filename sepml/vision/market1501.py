"""Market-1501, person re-identification: its folders and its evaluation.

Source: Zheng, Shen, Tian, Wang, Wang, Tian: Scalable Person Re-identification: A Benchmark, ICCV 2015.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sepml.errors import SepmlError

JUNK = -1
DISTRACTOR = 0
_FOLDERS = "bounding_box_train, bounding_box_test, query and gt_bbox"
_EXAMPLE = "0002_c1s1_000451_03.jpg"
_NAME = re.compile(r"(-1|[0-9]{4})_c([1-6])s[0-9]+_[0-9]+_[0-9]+")
# Queries whose similarities are in memory at once: 20 MB with the benchmark's gallery of 19,732.
_BLOCK = 256


class Person(NamedTuple):
    """An image, the identity of the person (`JUNK` and `DISTRACTOR` are no persons), and the camera, 1 to 6."""

    path: Path
    identity: int
    camera: int


@dataclass(frozen=True, eq=False)
class Features:
    """The features of N images by a network: vectors (N, D), identities (N,), cameras (N,).

    Raises:
        SepmlError: the shapes differ, or a vector has nan or inf.
    """

    vectors: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.vectors.shape, self.identities.shape, self.cameras.shape
        if len(shapes[0]) != 2 or not shapes[1] == shapes[2] == shapes[0][:1]:
            raise SepmlError(f"features: vectors, identities and cameras are {shapes}, expected (N, D), (N,) and (N,)")
        if bad := np.count_nonzero(~np.isfinite(self.vectors).all(axis=1)):
            raise SepmlError(f"features: {bad} of {shapes[0][0]} vectors have nan or inf, expected finite numbers")


@dataclass(frozen=True)
class Retrieval:
    """Quality of a ranking of the gallery: rates from 0 to 1, means over the queries that have a right answer.

    Attributes:
        mean_ap: by the benchmark's own rule, the area under the precision-recall curve in trapezoids.
        mean_ap_plain: the mean of the precisions at the right answers, as torchreid, fast-reid and scikit-learn >= 0.19
            compute it. Papers report one of both, often without saying which; on Market-1501 this one is 0.5 to 1 point higher.
        cmc: for each rank k, the share of the queries with a right answer among the first k.
        queries: number of queries in the means.
        unanswerable: number of queries without a right answer in the gallery, which are not counted.
    """

    mean_ap: float
    mean_ap_plain: float
    cmc: dict[int, float]
    queries: int
    unanswerable: int


def read_folder(folder: Path) -> list[Person]:
    """The images of one of the data set's folders, sorted by name; hidden files and files that are not .jpg are skipped.

    Raises:
        SepmlError: there is no such folder, it has no .jpg, or one of them is not named as the data set names them.
    """
    if not folder.is_dir():
        raise SepmlError(f"{folder}: no such folder, expected Market-1501's {_FOLDERS} in {folder.parent}")
    paths = [path for path in folder.iterdir() if path.suffix.lower() == ".jpg" and not path.name.startswith(".")]
    if not paths:
        raise SepmlError(f"{folder}: no .jpg in it, expected images such as {_EXAMPLE}")
    return [_person(path) for path in sorted(paths, key=lambda path: path.name)]


def _person(path: Path) -> Person:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        scheme = "IDENTITY_cCAMERAsSEQUENCE_FRAME_BOX.jpg, identity -1 or 4 digits, camera 1 to 6"
        raise SepmlError(f"{path}: not a name of Market-1501, expected {scheme}, such as {_EXAMPLE}")
    return Person(path, int(match[1]), int(match[2]))


def evaluate_retrieval(query: Features, gallery: Features, ranks: Sequence[int] = (1, 5, 10)) -> Retrieval:
    """Rank the gallery for each query by cosine similarity and score the order by the rules of Market-1501.

    Junk images, and images of the query's identity by the query's camera, are ignored. Distractors are wrong answers. Among
    gallery images of equal similarity the earlier one ranks higher; in single precision the matrix product may differ in the
    last digit between identical vectors.

    Raises:
        SepmlError: no query has a right answer in the gallery.
    """
    query_unit, gallery_unit = _unit(query.vectors), _unit(gallery.vectors)
    found = []  # for each query the ranks of its right answers
    for start in range(0, len(query_unit), _BLOCK):
        for i, similarity in enumerate(query_unit[start : start + _BLOCK] @ gallery_unit.T, start):
            found.append(_ranks_of_right(similarity, query.identities[i], query.cameras[i], gallery))
    answered = [right for right in found if right.size]
    if not answered:
        raise SepmlError(f"gallery: no image of the {len(found)} queries' identities from another camera, expected some")
    mean_ap, mean_ap_plain = np.mean([_average_precision(right) for right in answered], axis=0).tolist()
    first = np.array([right[0] for right in answered])
    cmc = {k: float(np.mean(first <= k)) for k in ranks}
    return Retrieval(mean_ap, mean_ap_plain, cmc, len(answered), len(found) - len(answered))


def multi_query(query: Features, gt: Features) -> Features:
    """Queries by several images: the mean of the normalised vectors of gt_bbox with the query's identity and camera.

    A query with none there keeps its own vector.
    """
    unit = _unit(gt.vectors)
    vectors = list(query.vectors)
    for i, (identity, camera) in enumerate(zip(query.identities, query.cameras, strict=True)):
        same = (gt.identities == identity) & (gt.cameras == camera)
        if same.any():
            vectors[i] = unit[same].mean(axis=0)
    return Features(np.stack(vectors), query.identities, query.cameras)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (N, D) at length 1; a zero vector stays zero. At least single precision, as networks also give half."""
    vectors = vectors.astype(np.result_type(vectors, np.float32), copy=False)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _ranks_of_right(similarity: np.ndarray, identity: int, camera: int, gallery: Features) -> np.ndarray:
    """The ranks, from 1 and rising, of a query's right answers; similarity is (N,)."""
    same = gallery.identities == identity
    left_out = (gallery.identities == JUNK) | same & (gallery.cameras == camera)
    right = same & ~left_out & (identity != DISTRACTOR)
    if not right.any():
        return np.empty(0, dtype=int)
    order = np.argsort(-similarity, kind="stable")
    return np.flatnonzero(right[order[~left_out[order]]]) + 1


def _average_precision(ranks: np.ndarray) -> tuple[float, float]:
    """The average precision in trapezoids and the plain one, of a query whose right answers have these ranks (n,).

    Recall rises by 1/n at each right answer; the trapezoid's other side is the precision one rank before, 1 before the first.
    Source: compute_ap of the Oxford buildings benchmark, which Market-1501's evaluation follows.
    """
    i = np.arange(1, len(ranks) + 1)
    precision = i / ranks
    before = np.where(ranks > 1, (i - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float(np.mean((before + precision) / 2)), float(np.mean(precision))
