"""The plan of a study: changes of settings, and faults in its file."""

from pathlib import Path

import pytest
import yaml
from tiny_training import write_config

from sepml.commands.tasks import study_task_of
from sepml.errors import SepmlError
from sepml.study.changes import change
from sepml.study.plan import Group, read_study

STUDY = {
    "base": "base.yaml",
    "variants": {"solo": {"cohort.mechanism": "solo"}, "ml": {"cohort": {"mechanism": "ml", "weight": 0.5}}},
    "seeds": 2,
    "tests": {"cv": "cv.csv"},
    "primary": {"variant": "ml", "test": "cv"},
}


def written(folder: Path, **changes: object) -> Path:
    write_config(folder / "base.yaml", folder)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return file


def test_settings_are_changed_by_dotted_keys_and_merged():
    settings = {"fit": {"epochs": 3, "clip_norm": 5}, "peers": [{"hidden": 64}, {"hidden": 64}], "seed": 1}
    found = change(settings, {"fit": {"epochs": 4}, "peers.1.hidden": 8, "peers.0": {"blocks": 2}, "cohort.weight": 0.1})
    assert found == {
        "fit": {"epochs": 4, "clip_norm": 5}, "peers": [{"hidden": 64, "blocks": 2}, {"hidden": 8}],
        "seed": 1, "cohort": {"weight": 0.1},
    }  # fmt: skip
    assert settings["peers"] == [{"hidden": 64}, {"hidden": 64}], "the base stays as it is for the other variants"


def test_another_kind_drops_the_settings_of_the_old_one():
    settings = {"peers": [{"kind": "dprnn", "chunk": 6}], "fit": {"learning_rate": {"kind": "step", "peak": 0.1, "gamma": 0.9}}}
    found = change(
        settings, {"peers.0": {"kind": "convtasnet", "hidden": 8}, "fit.learning_rate": {"kind": "step", "peak": 0.2}}
    )
    assert found["peers"] == [{"kind": "convtasnet", "hidden": 8}]
    assert found["fit"]["learning_rate"] == {"kind": "step", "peak": 0.2, "gamma": 0.9}, "the same kind keeps them"


def test_a_study_is_every_variant_with_every_seed(tmp_path):
    study = read_study(written(tmp_path), study_task_of, ["--fit.epochs", "7"])
    assert [run.name for run in study.runs] == ["solo/seed0", "ml/seed0", "solo/seed1", "ml/seed1"]
    assert {(run.experiment.seed, run.experiment.cohort.mechanism) for run in study.runs} == {
        (0, "solo"), (0, "ml"), (1, "solo"), (1, "ml"),
    }  # fmt: skip
    assert {run.experiment.fit.epochs for run in study.runs} == {7}
    assert study.tests == {"cv": "cv.csv"} and study.measures["cv"].unit == "dB"


def test_a_variant_has_more_seeds_of_its_own_after_those_of_all(tmp_path):
    study = read_study(written(tmp_path, seeds_of={"ml": 4}), study_task_of)
    assert [run.name for run in study.runs] == ["solo/seed0", "ml/seed0", "solo/seed1", "ml/seed1", "ml/seed2", "ml/seed3"]
    study = read_study(written(tmp_path, seeds_of={"solo": [5]}), study_task_of)
    assert [run.name for run in study.runs] == ["solo/seed5", "ml/seed0", "ml/seed1"]


def test_a_group_names_its_variants_or_also_the_scores_that_it_compares(tmp_path):
    groups = {"a": ["solo", "ml"], "b": {"variants": ["solo", "ml"], "of": ["peer1", "average"]}}
    study = read_study(written(tmp_path, groups=groups, primary={"variant": "ml", "test": "cv", "of": "peer1"}), study_task_of)
    assert study.groups == {"a": Group(["solo", "ml"], ("average", "peers")), "b": Group(["solo", "ml"], ("peer1", "average"))}


@pytest.mark.parametrize(("changes", "said"), [
    ({"variants": {"solo": {"cohort.mechanism": "sol"}}, "primary": None}, "variants.solo: 'cohort.mechanism'"),
    ({"variants": {"solo": {"peers.2": {"hidden": 4}}}, "primary": None}, "solo: 'peers.2' is of no item: there are 2"),
    ({"variants": {"solo": {"fit.epochs.x": 1}}, "primary": None}, "variants.solo: 'fit.epochs.x' is below 2"),
    ({"variants": {"so lo": {}}, "primary": None}, "'so lo' names a folder"),
    ({"variants": {"solo": {"fit.precision": "auto"}}, "primary": None}, "fit.precision is auto"),
    ({"seeds": [3, 3]}, "seeds: 3 is there more than once"),
    ({"seeds": []}, "seeds"),
    ({"seeds_of": {"mll": 8}}, "seeds_of: there is no 'mll'; did you mean 'ml'?"),
    ({"seeds_of": {"ml": [1, 2, 1]}}, "seeds_of.ml: 1 is there more than once"),
    ({"seeds_of": {"ml": 0}}, "seeds_of.ml"),
    ({"groups": {"a": ["solo", "mll"]}}, "groups.a: there is no 'mll'; did you mean 'ml'?"),
    ({"groups": {"a": {"variants": ["solo", "ml"], "of": ["peer0", "average"]}}}, "groups.a"),
    ({"primary": {"variant": "ml", "test": "cv", "of": "peer1"}}, "primary.of: 'peer1' is not compared, expected one of"),
    ({"groups": {"a": ["solo", "ml", "solo"]}}, "groups.a: 'solo' is there more than once"),
    ({"groups": {"a": {"variants": ["solo", "ml"], "of": ["peer3", "average"]}}}, "groups.a: 'solo' has 2 peers, expected 3"),
    ({"groups": {"a": []}}, "groups.a: expected variants"),
    ({"primary": {"variant": "ml", "test": "tt"}}, "primary.test: there is no 'tt'"),
    ({"primary": {"variant": "solo", "test": "cv"}}, "'solo' is compared with nothing"),
    ({"variant": {}}, "unknown key 'variant'; did you mean 'variants'?"),
    ({"base": "absent.yaml"}, "absent.yaml: no such configuration file"),
])  # fmt: skip
def test_faults_are_named(tmp_path, changes, said):
    with pytest.raises(SepmlError) as error:
        read_study(written(tmp_path, **changes), study_task_of)
    assert said in str(error.value) and "\n" not in str(error.value)
