"""Market-1501's folders, and its evaluation against hand-made answers, its original algorithm and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sepml.errors import SepmlError
from sepml.vision import market1501 as market
from sepml.vision.market1501 import Features, Person, evaluate_retrieval, multi_query, read_folder


def write_images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 8)).save(folder / name, "JPEG")
    return folder


def features(vectors: object, identities: object, cameras: object, dtype: type = np.float64) -> Features:
    return Features(np.array(vectors, dtype=dtype), np.array(identities), np.array(cameras))


def ranked(identities: list[int], cameras: list[int] | None = None) -> Features:
    """A gallery whose images come in this order for a query (1, 0): at growing angles, and stored the other way round."""
    angles = np.linspace(0.1, 1.4, len(identities))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return features(vectors[::-1], identities[::-1], (cameras or [2] * len(identities))[::-1])


QUERY = features([[3, 0]], [7], [1])


def random_case(seed: int) -> tuple[Features, Features]:
    """Few identities and cameras, so that junk, distractors, same-camera images and unanswerable queries are all frequent."""
    generator = np.random.default_rng(seed)
    dtype = np.float32 if seed % 2 else np.float64
    identities, cameras = generator.integers(-1, 8, 60), generator.integers(1, 4, 60)
    gallery = features(generator.standard_normal((60, 5)), identities, cameras, dtype)
    query = features(generator.standard_normal((20, 5)), generator.integers(0, 10, 20), generator.integers(1, 4, 20), dtype)
    return query, gallery


def kept_in_order(query: Features, gallery: Features, i: int) -> list[tuple[float, bool]]:
    """(similarity, is it right) of the gallery images that count for query i, best first, one pair at a time."""
    kept = []
    for j in range(len(gallery.vectors)):
        a, b = query.vectors[i].astype(float), gallery.vectors[j].astype(float)
        same = gallery.identities[j] == query.identities[i]
        if gallery.identities[j] == -1 or (same and gallery.cameras[j] == query.cameras[i]):
            continue
        right = bool(same and gallery.identities[j] > 0)
        kept.append((float(a @ b / np.sqrt((a @ a) * (b @ b))), right))
    return sorted(kept, key=lambda pair: -pair[0])


def area_rank_by_rank(right: list[bool]) -> float:
    """Average precision as the benchmark's program goes about it: every rank, carrying the last recall and precision."""
    area, old_recall, old_precision, hits = 0.0, 0.0, 1.0, 0
    for rank, hit in enumerate(right, 1):
        hits += hit
        recall, precision = hits / sum(right), hits / rank
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def test_folder_is_read_in_order_of_names_with_junk_and_distractors(tmp_path: Path) -> None:
    names = "0002_c1s1_000451_03.jpg", "1501_c6s4_001902_00.JPG", "-1_c3s2_012345_01.jpg", "0000_c5s1_000151_01.jpg"
    folder = write_images(tmp_path / "bounding_box_test", *names)
    for other in "Thumbs.db", "readme.txt", "._0002_c1s1_000451_03.jpg":
        (folder / other).write_text("no image")
    identities_and_cameras = (-1, 3), (0, 5), (2, 1), (1501, 6)
    assert read_folder(folder) == [
        Person(folder / name, identity, camera)
        for name, (identity, camera) in zip(sorted(names), identities_and_cameras, strict=True)
    ]


FOREIGN = (
    "0002_c7s1_000451_03.jpg 0002_c0s1_000451_03.jpg 2_c1s1_000451_03.jpg -2_c1s1_000451_03.jpg a.jpg"
    " 0002_c1s1_000451.jpg 0002_c1_f0046985.jpg 0002_c1s1_000451_03_fake.jpg"
)


@pytest.mark.parametrize("name", FOREIGN.split())
def test_a_foreign_name_is_an_error_that_names_file_and_scheme(tmp_path: Path, name: str) -> None:
    folder = write_images(tmp_path / "query", "0001_c1s1_001051_00.jpg", name)
    with pytest.raises(SepmlError) as error:
        read_folder(folder)
    message = str(error.value)
    assert (
        message.startswith(f"{folder / name}: ") and message.endswith("such as 0002_c1s1_000451_03.jpg") and "\n" not in message
    )


def test_a_folder_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SepmlError, match=r"gt_bbox: no such folder, expected .*bounding_box_train.* in "):
        read_folder(tmp_path / "gt_bbox")
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "Thumbs.db").touch()
    with pytest.raises(SepmlError, match=r"query: no \.jpg in it"):
        read_folder(tmp_path / "query")


@pytest.mark.parametrize(
    ("right_ranks", "plain", "trapezoids"),
    [
        ([1, 2, 4, 7], (1 + 1 + 3 / 4 + 4 / 7) / 4, (1 + 1 + (2 / 3 + 3 / 4) / 2 + (3 / 6 + 4 / 7) / 2) / 4),
        ([1], 1, 1),
        ([2], 1 / 2, 1 / 4),
        ([8], 1 / 8, 1 / 16),
        ([1, 2, 3, 4, 5, 6, 7, 8], 1, 1),
        ([2, 3], (1 / 2 + 2 / 3) / 2, (1 / 4 + (1 / 2 + 2 / 3) / 2) / 2),
    ],
)
def test_average_precision_by_hand(right_ranks: list[int], plain: float, trapezoids: float) -> None:
    gallery = ranked([7 if rank in right_ranks else 0 for rank in range(1, 9)])
    result = evaluate_retrieval(QUERY, gallery, ranks=range(1, 9))
    assert result.mean_ap_plain == pytest.approx(plain, abs=1e-12)
    assert result.mean_ap == pytest.approx(trapezoids, abs=1e-12)
    assert result.cmc == {k: float(k >= right_ranks[0]) for k in range(1, 9)}
    assert (result.queries, result.unanswerable) == (1, 0)


def test_junk_and_the_querys_own_camera_take_no_rank_and_distractors_do() -> None:
    gallery = ranked([7, -1, 7, 0, 5, -1, 7], cameras=[1, 2, 1, 2, 1, 1, 3])
    result = evaluate_retrieval(QUERY, gallery, ranks=(1, 2, 3))
    assert result.mean_ap_plain == pytest.approx(1 / 3) and result.cmc == {1: 0, 2: 0, 3: 1}


def test_queries_without_a_right_answer_are_reported_and_not_counted() -> None:
    gallery = ranked([7, 0, -1, 8], cameras=[2, 2, 2, 1])
    # Answered; only from its own camera; not in the gallery; a distractor; junk.
    query = features([[1, 0]] * 5, [7, 8, 9, 0, -1], [1] * 5)
    result = evaluate_retrieval(query, gallery)
    assert (result.queries, result.unanswerable, result.mean_ap, result.cmc[1]) == (1, 4, 1, 1)
    with pytest.raises(SepmlError, match="gallery: no image of the 1 queries' identities"):
        evaluate_retrieval(features([[1, 0]], [9], [1]), gallery)


def test_ties_keep_the_order_of_the_gallery_and_zero_vectors_are_similar_to_nothing() -> None:
    identities = [5, 7, 6, 7]
    tied = evaluate_retrieval(QUERY, features([[2, 0], [1, 0], [4, 0], [3, 0]], identities, [2] * 4), ranks=(1, 2))
    assert tied.mean_ap_plain == pytest.approx((1 / 2 + 2 / 4) / 2) and tied.cmc == {1: 0, 2: 1}
    # Small arrays would be sorted stably by any algorithm. The 500 at even places come first; 250 right ones among them.
    two = features([[1 - j % 2, j % 2] for j in range(1000)], [7 if j % 4 == 2 else 5 for j in range(1000)], [2] * 1000)
    result = evaluate_retrieval(QUERY, two, ranks=(1, 2))
    assert result.mean_ap_plain == pytest.approx(1 / 2) and result.cmc == {1: 0, 2: 1}
    # Similarities -1, 0, 1, 0.
    zeros = evaluate_retrieval(QUERY, features([[-1, 0], [0, 0], [1, 0], [0, 0]], identities, [2] * 4))
    assert zeros.mean_ap_plain == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(40))
def test_random_features_against_pairs_one_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market, "_BLOCK", 7)
    query, gallery = random_case(seed)
    orders = [[right for _, right in kept_in_order(query, gallery, i)] for i in range(len(query.vectors))]
    answered = [order for order in orders if any(order)]
    result = evaluate_retrieval(query, gallery, ranks=(1, 3, 100))
    assert 0 < len(answered) < len(orders)
    assert (result.queries, result.unanswerable) == (len(answered), len(orders) - len(answered))
    plain = [np.mean([sum(o[: k + 1]) / (k + 1) for k in range(len(o)) if o[k]]) for o in answered]
    assert result.mean_ap_plain == pytest.approx(np.mean(plain), abs=1e-12)
    assert result.mean_ap == pytest.approx(np.mean([area_rank_by_rank(o) for o in answered]), abs=1e-12)
    assert result.cmc == {k: pytest.approx(np.mean([any(o[:k]) for o in answered])) for k in (1, 3, 100)}


@pytest.mark.parametrize("seed", range(10))
def test_random_features_against_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, an independent average precision")
    query, gallery = random_case(seed)
    plain, areas = [], []
    for i in range(len(query.vectors)):
        similarities, right = zip(*kept_in_order(query, gallery, i), strict=True)
        if any(right):
            plain.append(metrics.average_precision_score(right, similarities))
            precision, recall, _ = metrics.precision_recall_curve(right, similarities)
            areas.append(metrics.auc(recall, precision))
    result = evaluate_retrieval(query, gallery)
    assert result.mean_ap_plain == pytest.approx(np.mean(plain), abs=1e-12)
    assert result.mean_ap == pytest.approx(np.mean(areas), abs=1e-12)
    assert result.mean_ap < result.mean_ap_plain


def test_multi_query_is_the_mean_of_unit_vectors_of_the_same_identity_and_camera() -> None:
    query = features([[5, 5], [0, 9], [1, 2]], [1, 1, 2], [1, 2, 1])
    gt = features([[10, 0], [0, 0.5], [3, 4], [1, 1]], [1, 1, 1, 3], [1, 1, 2, 1])
    pooled = multi_query(query, gt)
    np.testing.assert_allclose(pooled.vectors, [[0.5, 0.5], [0.6, 0.8], [1, 2]], rtol=0, atol=1e-12)
    assert pooled.identities.tolist() == [1, 1, 2] and pooled.cameras.tolist() == [1, 2, 1]
    assert query.vectors[0].tolist() == [5, 5]


def test_features_that_disagree_or_are_not_finite_are_errors() -> None:
    with pytest.raises(SepmlError, match=r"are \(\(2, 2\), \(1,\), \(2,\)\), expected"):
        features([[1, 0], [0, 1]], [1], [1, 2])
    with pytest.raises(SepmlError, match=r"expected \(N, D\)"):
        features([1, 0], [1, 2], [1, 2])
    with pytest.raises(SepmlError, match="1 of 2 vectors have nan or inf"):
        features([[1, 0], [np.nan, np.inf]], [1, 2], [1, 2])


def test_half_precision_is_ranked_in_single() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((200, 64)).astype(np.float16)
    identities, cameras = generator.integers(1, 9, 200), generator.integers(1, 7, 200)
    half, double = (Features(vectors.astype(dtype), identities, cameras) for dtype in (np.float16, np.float64))
    assert evaluate_retrieval(half, half) == evaluate_retrieval(double, double)
