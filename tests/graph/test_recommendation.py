"""Recommendation of music: losses in closed form, rankings beside scikit-learn's, data, runs from the command line."""

import csv
import math

import numpy as np
import pytest
import torch
import yaml
from image_training import history, train
from torch.nn import functional

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.graph.listening import Listening, ListeningSettings, generate_listening, listening_of, read_listening
from sepml.graph.recommendation import (
    ListeningBatch,
    RecommendationTask,
    Tower,
    TowerConfig,
    TowerScores,
    ranking_scores,
    together,
)

DATA = {"users": 30, "songs": 40, "communities": 3, "listens": 10, "friends": 2, "batch_size": 64}
FIT = {"epochs": 3, "precision": "32-true", "optimizer": {"kind": "adam"}, "tensorboard": False, "keep": "last"}


def scores(values: list[list[float]], present: list[list[bool]] | None = None) -> TowerScores:
    found = torch.tensor(values, requires_grad=True)
    return TowerScores(found, torch.ones_like(found).bool() if present is None else torch.tensor(present))


def batch(songs: list[int], others: list[int], size: int) -> ListeningBatch:
    nothing = torch.zeros(len(songs), size).bool()
    return ListeningBatch(torch.arange(len(songs)), torch.tensor(songs), torch.tensor(others), nothing, nothing)


def test_the_ranking_loss_is_that_of_the_difference():
    found = RecommendationTask().supervised_loss(scores([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]]), batch([0, 1], [2, 2], 3))
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-3.0)), math.log1p(math.exp(3.0))], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_is_that_over_songs_that_both_know(temperature):
    task = RecommendationTask(temperature)
    student = scores([[1.0, 2.0, 9.0, 0.0]], [[True, True, False, True]])
    teacher = scores([[0.5, 0.0, 1.0, 5.0]], [[True, True, True, False]])
    p, q = (torch.softmax(each.scores[:, :2] / temperature, 1) for each in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum()
    found = task.mimic_loss(student, teacher)
    torch.testing.assert_close(found[0], expected)
    [gradient] = torch.autograd.grad(found.sum(), student.scores)
    assert gradient[0, 2:].tolist() == [0.0, 0.0] and gradient[0, :2].abs().min() > 0
    everywhere = RecommendationTask(temperature, common=False).mimic_loss(student, teacher)
    logs = [functional.log_softmax(each.scores / temperature, 1) for each in (student, teacher)]
    whole = temperature**2 * functional.kl_div(*logs, reduction="sum", log_target=True)
    torch.testing.assert_close(everywhere[0], whole)


def test_nothing_in_common_teaches_nothing():
    student = scores([[1.0, 2.0]], [[True, False]])
    found = RecommendationTask().mimic_loss(student, scores([[3.0, 1.0]], [[False, True]]))
    assert found.tolist() == [0.0] and torch.autograd.grad(found.sum(), student.scores)[0].abs().max() == 0


def test_rankings_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    values, wanted = rng.standard_normal((50, 30)), rng.random((50, 30)) < 0.2
    wanted[:, 0] = True
    recall, ndcg = ranking_scores(torch.from_numpy(values), torch.zeros(50, 30).bool(), torch.from_numpy(wanted), 10)
    expected = [100 * metrics.ndcg_score(w[None].astype(float), v[None], k=10) for w, v in zip(wanted, values, strict=True)]
    assert ndcg.tolist() == pytest.approx(expected)
    tops = [set(np.argsort(-v)[:10]) for v in values]
    by_hand = [100 * len(top & set(np.flatnonzero(w))) / w.sum() for top, w in zip(tops, wanted, strict=True)]
    assert recall.tolist() == pytest.approx(by_hand)


def test_known_songs_are_not_recommended():
    known = torch.tensor([[True, False, False]])
    recall, _ = ranking_scores(torch.tensor([[9.0, 1.0, 0.0]]), known, torch.tensor([[False, True, False]]), 1)
    assert recall.tolist() == [100.0]


def test_towers_without_features_of_a_song_do_not_count():
    one, other = scores([[1.0, 0.0, 2.0]], [[True, True, False]]), scores([[0.0, 3.0, 1.0]], [[True, False, False]])
    logs = [functional.log_softmax(each.scores, 1)[0] for each in (one, other)]
    expected = [(logs[0][0] + logs[1][0]) / 2, logs[0][1], (logs[0][2] + logs[1][2]) / 2]
    torch.testing.assert_close(together([one, other])[0], torch.stack(expected))


def test_propagation_is_that_of_the_normalised_adjacency():
    """LightGCN, equation 4, by a dense matrix."""
    listening = generate_listening(ListeningSettings(**DATA), 0)
    torch.manual_seed(0)
    tower = Tower(TowerConfig("audio", 30, 40, 24, 8, 2), listening)
    adjacency = torch.zeros(70, 70)
    for user, song in listening.train:
        adjacency[user, 30 + song] = adjacency[30 + song, user] = 1
    for user, friend in listening.social:
        adjacency[user, friend] = adjacency[friend, user] = 1
    degree = adjacency.sum(1).clamp(min=1e-9) ** -0.5
    degree[adjacency.sum(1) == 0] = 0
    normal = degree[:, None] * adjacency * degree
    x = torch.cat([tower.users.weight, tower.project(tower.features)])
    mean = (x + normal @ x + normal @ normal @ x) / 3
    torch.testing.assert_close(tower(torch.tensor([3, 5])), mean[[3, 5]] @ mean[30:].T, atol=1e-5, rtol=1e-4)


def test_a_community_is_drawn_by_its_seed_and_keeps_a_modality():
    settings = ListeningSettings(**DATA, missing=0.6)
    one, again, other = (listening_of(settings, seed) for seed in (1, 1, 2))
    assert (one.train == again.train).all() and not np.array_equal(one.train, other.train)
    there = np.stack([~np.isnan(each).any(1) for each in one.features.values()])
    assert there.any(0).all() and 0.3 < there.mean() < 0.6
    parts = [set(map(tuple, pairs)) for pairs in (one.train, one.valid, one.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2] and len(set.union(*parts)) == 300
    assert not len(listening_of(ListeningSettings(**DATA, social=False), 1).social)


def write_folder(folder) -> None:
    rng = np.random.default_rng(0)
    tables = {"interactions.csv": [("user", "song")], "social.csv": [("user", "friend"), ("u0", "u1")]}
    tables["interactions.csv"] += [(f"u{u}", f"s{s}") for u in range(6) for s in rng.permutation(12)[:6]]
    tables["audio.csv"] = [("song", "f1", "f2"), *((f"s{s}", *rng.standard_normal(2)) for s in range(12) if s != 3)]
    tables["lyrics.csv"] = [("song", "f1"), *((f"s{s}", *rng.standard_normal(1)) for s in range(12))]
    for name, rows in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def test_a_folder_is_read(tmp_path):
    write_folder(tmp_path)
    found = read_listening(tmp_path, 0)
    assert isinstance(found, Listening) and found.users[0] == "u0" and found.social.tolist() == [[0, 1]]
    assert len(found.train) + len(found.valid) + len(found.test) == 36 and {*found.features} == {"audio", "lyrics"}
    assert np.isnan(found.features["audio"]).any(1).sum() == 1


@pytest.mark.parametrize(("name", "content", "said"), [
    ("interactions.csv", "user,song\nu0,s0\n", "interactions.csv: u0 listens to 1 songs, expected 5 or more"),
    ("social.csv", "user,friend\nu0,nobody\n", "social.csv:2: 'nobody' listens to nothing in interactions.csv"),
    ("audio.csv", "song,f1\ns0,loud\n", "audio.csv:2: could not convert string to float: 'loud', expected numbers"),
    ("audio.csv", "song,f1\nelsewhere,1\n", "audio.csv: expected finite numbers for songs of interactions.csv"),
])  # fmt: skip
def test_a_damaged_folder_is_refused(tmp_path, name, content, said):
    write_folder(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(SepmlError) as caught:
        read_listening(tmp_path, 0)
    assert said in str(caught.value)


def written(path, **settings):
    peers = [{"modality": name, "size": 8} for name in ("lyrics", "audio", "visual")]
    path.write_text(yaml.safe_dump({"task": "recommendation", "data": DATA, "peers": peers, "fit": FIT, **settings}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    assert train(written(folder / "config.yaml"), folder / "exp") == 0
    return folder


def test_a_run_that_goes_on_is_one_that_never_stopped(trained, tmp_path):
    config = written(tmp_path / "config.yaml")
    for epochs in ("1", "2", "3"):
        assert train(config, tmp_path / "exp", "--fit.epochs", epochs) == 0
    assert history(tmp_path / "exp") == history(trained / "exp")
    for k in (1, 2, 3):
        assert (tmp_path / f"exp/peer{k}/model.safetensors").read_bytes() == (
            trained / f"exp/peer{k}/model.safetensors"
        ).read_bytes()


def test_evaluate_info_and_export(trained, tmp_path, capsys):
    assert main(["evaluate", "--model", str(trained / "exp"), "-o", str(tmp_path), "-d", "cpu", "-q"]) == 0
    shown = capsys.readouterr().out
    with (tmp_path / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["peer"] for row in rows] == ["1", "2", "3", "all"] and f"{float(rows[3]['ndcg']):.2f}" in shown
    assert main(["info", str(trained / "exp")]) == 0 and main(["info", str(trained / "exp/peer2")]) == 0
    assert capsys.readouterr().out.count("audio tower: 30 users, 40 songs") == 2
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(trained / "exp/peer1"), "-o", str(tmp_path / "x")])
    assert "peer1 is a tower; expected the experiment that it is of" in capsys.readouterr().err
    assert main(["export", str(trained / "exp"), str(tmp_path / "x.onnx")]) == 1
    assert "towers have no other form" in capsys.readouterr().err


def test_a_study_scores_users(tmp_path):
    written(tmp_path / "base.yaml")
    variants = {"solo": {"cohort.mechanism": "solo"}, "ml": {}}
    plan = {"base": "base.yaml", "seeds": 2, "tests": {"ndcg": "ndcg", "recall": "recall"}, "variants": variants}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    assert main(["study", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "out"), "-j", "1", "-d", "cpu", "-q"]) == 0
    text = " ".join((tmp_path / "out/RESULTS.md").read_text().split())
    assert "Recall@K and NDCG@K of the test songs of each user, means over users" in text and "average, % | peers, %" in text


@pytest.mark.parametrize(("words", "said"), [
    (["--data.listens", "41"], "data.listens is 41, expected at most the 40 songs"),
    (["--data.friends", "30"], "data.friends is 30, expected less than the 30 users"),
    (["--cohort.unlabelled.threshold", "3"], "'cohort.unlabelled' is for experiments in separation"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_one_line(tmp_path, capsys, words, said):
    assert train(written(tmp_path / "config.yaml"), tmp_path / "exp", *words) == 1
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_a_modality_that_is_not_there_is_refused(tmp_path, capsys):
    write_folder(tmp_path)
    config = written(tmp_path / "config.yaml", data={"kind": "folder", "root": str(tmp_path)})
    assert train(config, tmp_path / "exp") == 1
    assert "peers.2.modality is 'visual', the songs have lyrics, audio alone" in capsys.readouterr().err
