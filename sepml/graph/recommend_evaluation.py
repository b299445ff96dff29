"""Evaluation of towers that recommend music, and recommendation as the task of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sepml.config import parse
from sepml.graph.listening import Listening, listening_of
from sepml.graph.recommend import (
    RecommendationExperiment,
    load_tower,
    marked,
    parse_recommendation,
    task_of_experiment,
    tower_configs,
    train_recommendation,
    wanted_loader,
)
from sepml.graph.recommendation import ListeningBatch, TowerScores, ranking_scores, together
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.evaluation import Evaluation
from sepml.training.experiment import Machines, read_run

_MEASURES = {name: Measure(name, "%", "user", "users") for name in ("recall", "ndcg")}


@torch.no_grad()
def _tested(exp: Path, device: str) -> tuple[RecommendationExperiment, Listening, ListeningBatch, dict[str, Tensor]]:
    """The test interactions of an experiment, and the scores of all songs by each tower and by all together."""
    experiment, folders = read_run(RecommendationExperiment, exp)
    listening, task = listening_of(experiment.data, experiment.seed), task_of_experiment(experiment)
    known = marked(listening, listening.train, listening.valid)
    batches = [*wanted_loader(listening, listening.test, known, experiment.seed)]
    predictions: list[TowerScores] = []
    for folder, config in zip(folders, tower_configs(experiment, listening), strict=True):
        tower = load_tower(folder, config, listening).to(device)
        each = [task.predict(tower, ListeningBatch(*(part.to(device) for part in batch))) for batch in batches]
        predictions.append(TowerScores(*(torch.cat([one[part] for one in each]).cpu() for part in (0, 1))))
    scores = {f"peer{k + 1}": each.scores for k, each in enumerate(predictions)} | {AVERAGE: together(predictions)}
    return experiment, listening, ListeningBatch(*(torch.cat(fields) for fields in zip(*batches, strict=True))), scores


def evaluate_recommendation(exp: Path, out: Path, device: str = "cpu", force: bool = False) -> list[dict[str, Any]]:
    """Recall@K and NDCG@K of each tower, and of all together, on the test interactions, percent; writes `evaluation.csv`.

    Raises:
        SepmlError: the folder holds no experiment with a finished epoch, or `out` holds the evaluation of another one.
    """
    evaluation = Evaluation(exp, out, device, force)
    experiment, _, batch, scores = _tested(exp, device)
    table = []
    for name, each in scores.items():
        found = ranking_scores(each, batch.known, batch.wanted, experiment.recommendation.depth)
        label = "all" if name == AVERAGE else name.removeprefix("peer")
        table.append({"peer": label, "recall": float(found[0].mean()), "ndcg": float(found[1].mean())})
    evaluation.write(table)
    return table


class RecommendationStudy:
    """Studies in recommendation; a test is `recall` or `ndcg`, on the test interactions. See `sepml.study.task.StudyTask`."""

    wording = Wording("Recall@K and NDCG@K of the test songs of each user", "users")

    def parse(self, settings: dict[str, Any], source: str) -> RecommendationExperiment:
        """An experiment from its settings."""
        return parse_recommendation(settings, source)

    def restore(self, settings: dict[str, Any], source: str) -> RecommendationExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(RecommendationExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train_recommendation(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures."""
        return measure_named(test, _MEASURES, source)

    def lists(self, experiment: RecommendationExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """The tables of a folder; none of a generated community."""
        files = experiment.data.root.glob("*.csv") if experiment.data.kind == "folder" else ()
        return {f"data.{file.stem}": file for file in sorted(files)}

    def score(
        self, exp: Path, experiment: RecommendationExperiment, tests: Mapping[str, str], device: str
    ) -> dict[str, RunScores]:
        """The scores of each user by each tower and by all together."""
        trained, listening, batch, scores = _tested(exp, device)
        found = {n: ranking_scores(s, batch.known, batch.wanted, trained.recommendation.depth) for n, s in scores.items()}
        users = tuple(listening.users[user] for user in batch.users.tolist())
        return {
            name: RunScores(users, ("",) * len(users), {n: each[[*_MEASURES].index(test)].numpy() for n, each in found.items()})
            for name, test in tests.items()
        }
