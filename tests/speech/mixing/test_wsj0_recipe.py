"""The settings of the recipe wsj0-2mix, and what its script refuses."""

import pytest
from wsj0_recipe import RECIPE, recipe


@pytest.mark.parametrize("size", ["", "-win16"])
@pytest.mark.parametrize("mechanism", ["solo", "kd", "ml", "sml"])
def test_the_settings_are_the_papers(mechanism, size):
    from sepml.config import override, read_yaml
    from sepml.speech.experiment import parse_experiment

    config = RECIPE / "conf" / f"{mechanism}{size}.yaml"
    experiment = parse_experiment(override(read_yaml(config), ["--peers.0.n_src", "3", "--peers.1.n_src", "3"]), str(config))
    assert experiment.cohort.mechanism == mechanism
    assert experiment.cohort.weight == 0.001
    assert [experiment.cohort.threshold.schedule.at(epoch) for epoch in (0, 9, 10, 99)] == [15, 15, 16, 20]
    assert [peer.blocks for peer in experiment.peers] == [3, 6 if mechanism == "kd" else 3]
    assert {(peer.window, peer.chunk) for peer in experiment.peers} == {(16, 100) if size else (2, 256)}
    assert {(peer.n_filters, peer.hidden, peer.n_src) for peer in experiment.peers} == {(64, 100, 3)}
    rate = experiment.fit.learning_rate
    assert [rate.schedule.at(epoch, 200) for epoch in (0, 1, 2)] == [1e-4, 1e-4, 0.98e-4]
    assert (experiment.fit.clip_norm, experiment.fit.early_stop) == (5, 15)
    assert (experiment.data.batch_size, experiment.data.segment) == (4, 4.0)


def test_the_recipe_refuses_what_it_does_not_know(tmp_path):
    assert "--ldc DIR" in recipe(tmp_path, "--help").stdout
    for words, expected in [
        (["--speakers", "2"], "run.sh: unknown option --speakers; options: stage, stop_stage, ldc, lists"),
        (["--stage", "1", "--lists", "none"], "no such folder"),
        (["--lists", str(tmp_path)], "run.sh: stage 0 needs --ldc DIR; see --help"),
    ]:
        done = recipe(tmp_path, *words)
        assert done.returncode == 2
        assert expected in done.stderr
