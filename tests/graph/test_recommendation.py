"""Recommendation of music: losses in closed form, rankings beside scikit-learn's, data, runs from the command line."""

import csv
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from image_training import history, train
from safetensors.torch import load_file
from torch.nn import functional
from training_runs import one_line

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.graph.listening import Listening, ListeningSettings, generate_listening, listening_of, read_listening
from sepml.graph.recommend import Interactions, marked, parse_recommendation, recommendation_parts
from sepml.graph.recommend_evaluation import evaluate_recommendation
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


def test_scores_that_are_not_numbers_have_no_ranking():
    nothing, wanted = torch.zeros(2, 3).bool(), torch.tensor([[True, False, False]] * 2)
    for found in ranking_scores(torch.tensor([[math.nan, 0.0, 0.0], [1.0, 0.0, 0.0]]), nothing, wanted, 2):
        assert math.isnan(found[0]) and found[1] == 100


def test_the_average_teacher_has_the_mean_of_the_towers_that_know_a_song():
    values = torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[5.0, 8.0, 7.0, 6.0]], [[math.nan] * 4]])
    present = torch.tensor([[[True, True, False, False]], [[True, False, True, False]], [[True] * 4]])
    shares = torch.tensor([0.25, 0.75, 0.0])[:, None, None]
    found = RecommendationTask().average(TowerScores(values, present), shares)
    assert found.scores[0, :3].tolist() == [4.0, 2.0, 7.0] and found.present.tolist() == [[True, True, True, False]]


def test_the_confidence_is_the_probability_of_the_likeliest_song():
    found = RecommendationTask(2.0).confidence([scores([[0.0, 2.0]]), scores([[0.0, 0.0]])], batch([0], [1], 2))
    assert found.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.5])


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


def test_negatives_are_drawn_anew_in_each_epoch_and_never_from_training():
    listening = generate_listening(ListeningSettings(**DATA), 0)
    known = marked(listening, listening.train)
    drawn = Interactions(listening.train, known, known, 3)
    others = np.array([[int(drawn[epoch, n].others) for n in range(len(drawn))] for epoch in (0, 1)])
    assert not known[listening.train[:, 0], others].any() and (others[0] != others[1]).mean() > 0.8
    assert [int(drawn[0, n].others) for n in range(20)] == others[0, :20].tolist()


def test_two_processes_validate_all_songs_of_half_of_the_users_each():
    experiment = parse_recommendation({"data": DATA, "peers": [{"modality": "audio"}]}, "x")
    whole, *halves = (
        [ListeningBatch(*parts) for parts in zip(*(torch.cat(field) for field in zip(*loader, strict=True)), strict=True)]
        for loader in (recommendation_parts(experiment, *share).loaders[1] for share in ((0, 1), (0, 2), (1, 2)))
    )
    wanted = {int(row.users): row.wanted for row in whole}
    assert len(whole) == 30 and sum(map(len, halves)) == 30
    for half in halves:
        assert len(half) == 15 and all(torch.equal(row.wanted, wanted[int(row.users)]) for row in half)


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
    ("interactions.csv", "user,song\nu0,s0\n", "interactions.csv: songs of user 'u0': 1, expected 5 or more"),
    ("interactions.csv", "user,song\n", "interactions.csv: holds no interactions"),
    ("interactions.csv", "usr,song\na,b\n", "column 'user' is missing; did you mean 'usr'?; expected a table of interactions"),
    ("social.csv", "user,friend\nu0,nobody\n", "social.csv:2: 'nobody' listens to nothing in interactions.csv"),
    ("social.csv", "user,friend\nu0,u0\n", "social.csv:2: 'u0' stands as a friend of their own"),
    ("audio.csv", "", "audio.csv: column 'song' is missing; expected a table of features, the header is: nothing"),
    ("audio.csv", "song\ns0\n", "audio.csv: has the column 'song' alone"),
    *(("audio.csv", f"song,f1,f2\ns0,1,2\ns1,0,{bad}\n", f"audio.csv:3: f2 is '{bad}', expected a finite number")
      for bad in ("loud", "", "nan", "inf", "1e39")),
    ("audio.csv", "song,f1\ns0,1\ns0,2\n", "audio.csv:3: song 's0' stands twice"),
    ("audio.csv", "song,f1\nelsewhere,1\n", "audio.csv: has features of none of the songs in interactions.csv"),
])  # fmt: skip
def test_a_damaged_folder_is_refused(tmp_path, name, content, said):
    write_folder(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(SepmlError) as caught:
        read_listening(tmp_path, 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)


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
    with pytest.raises(SystemExit):
        main(["export", str(trained / "exp"), str(tmp_path / "x.onnx")])
    assert "towers are not exported" in capsys.readouterr().err


def test_an_evaluation_ranks_all_songs_but_those_of_training_and_validation(trained, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    [*towers, _] = evaluate_recommendation(trained / "exp", tmp_path)
    listening = generate_listening(ListeningSettings(**DATA), 0)
    for k, row in enumerate(towers):
        weights = load_file(trained / f"exp/peer{k + 1}/model.safetensors")
        tower = Tower(TowerConfig(("lyrics", "audio", "visual")[k], 30, 40, weights["project.weight"].shape[1], 8), listening)
        tower.load_state_dict(weights)
        found = []
        for user, values in enumerate(tower(torch.arange(30)).detach().numpy()):
            known = [song for pairs in (listening.train, listening.valid) for u, song in pairs if u == user]
            wanted = np.isin(np.arange(40), listening.test[listening.test[:, 0] == user, 1])
            free = np.setdiff1d(np.arange(40), known)
            found.append(metrics.ndcg_score(wanted[None, free].astype(float), values[None, free], k=20))
        assert row["ndcg"] == pytest.approx(100 * np.mean(found), rel=1e-5)


def test_damaged_towers_and_those_of_other_data_are_one_line(trained, tmp_path, capsys):
    exp = shutil.copytree(trained / "exp", tmp_path / "exp")
    evaluation = ["evaluate", "--model", str(exp), "-o", str(tmp_path / "out"), "-d", "cpu", "-q"]
    settings = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(settings.replace("songs: 40", "songs: 41"))
    assert main(evaluation) == 1
    one_line(capsys, "peer1: is not the tower that the experiment's config.yaml and its data ask for")
    (exp / "config.yaml").write_text(settings)
    (exp / "peer1/model.safetensors").write_bytes(b"none")
    for words in (evaluation, ["info", str(exp)]):
        assert main(words) == 1
        one_line(capsys, "peer1/model.safetensors", "cannot be read as safetensors weights")
    for k in (1, 2, 3):
        shutil.rmtree(exp / f"peer{k}")
    assert main(["info", str(exp)]) == 1
    one_line(capsys, "exp: has no peer1, expected an experiment with an epoch done")


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
    (["--data.users", "100000", "--data.songs", "501"], "data: 100,000 users and 501 songs are 50,100,000 pairs"),
    (["--data.users", "50000", "--peers.0.size", "4096"], "the tower for lyrics would have"),
    (["--data.friends", "30"], "data.friends is 30, expected less than the 30 users"),
    (["--cohort.unlabelled.threshold", "3"], "'cohort.unlabelled' is for experiments in separation"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_one_line(tmp_path, capsys, words, said):
    assert train(written(tmp_path / "config.yaml"), tmp_path / "exp", *words) == 1
    one_line(capsys, said)


def test_a_modality_that_is_not_there_is_refused(tmp_path, capsys):
    write_folder(tmp_path)
    config = written(tmp_path / "config.yaml", data={"kind": "folder", "root": str(tmp_path)})
    assert train(config, tmp_path / "exp") == 1
    assert "peers.2.modality is 'visual', the songs have lyrics, audio alone" in capsys.readouterr().err
