"""Settings and folders of image experiments that are refused, in one line."""

import shutil

import pytest
from image_training import ROOT, VIEWS, one_line, train

SPEECH = ROOT / "recipes" / "librimix" / "conf" / "paper.yaml"


def views(**changes: object) -> list[str]:
    """The words for views of a `small` network."""
    return ["--peers", "[{network: small}]", "--views", str(VIEWS | changes), "--cohort.mechanism", "inplace"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--task", "clasification"],
            "task is 'clasification', expected one of separation, classification, bayesian; did you mean",
        ),
        (["--peers.0.network", "resnet23"], "'peers.0.network': input should be 'resnet32', 'mobilenet', "),
        (["--peers.1.widht", "0.5"], "unknown key 'peers.1.widht'; did you mean 'peers.1.width'?"),
        (["--peers.1.width", "1.5"], "'peers.1.width': input should be less than or equal to 1"),
        (["--peers.0.width", "0.5"], "network 'resnet32' has no narrower versions; expected one of mobilenet, "),
        (["--peers.0.weights", "absent.safetensors"], "absent.safetensors"),
        (["--data.kind", "cifar"], "'data.kind': input should be 'cifar10', "),
        (["--data.root", "absent"], "absent: no sound cifar-10-batches-py in it"),
        (["--data.labels", "70"], "7 expected for 70 labels"),
        (["--views", str(VIEWS)], "views are of one network, and there are 2 peers"),
        (
            ["--views", str(VIEWS), "--peers", "[{network: resnet32}]"],
            "network 'resnet32' has no narrower versions; expected one of mobilenet, ",
        ),
        (views(resolutions=[28, 32]), "views.resolutions begin with 28, expected the images' height 32"),
        (views(widths=[1.0, 0.5]), "views.widths are 1.0 and 0.5, expected the narrowest first"),
        (views(), "updates 'alternating' needs a network of its own for each peer; views of one step together"),
        (["--classification.temperature", "0"], "'classification.temperature': input should be greater than 0"),
        (views(widths=[0.25, 0.5]), "views.widths end with 0.5, expected 1.0"),
        (["--epochs", "3"], "unknown key 'epochs'"),
        (["--cohort.unlabelled.threshold", "0.5"], "'cohort.unlabelled' is for experiments in separation"),
        (["--data.crop_padding", "32"], "data.crop_padding is 32, expected less than the images' 32 pixels"),
    ],
)
def test_bad_settings(cifar, tmp_path, capsys, words, message):
    assert train(cifar.config, tmp_path / "exp", *words) == 1
    one_line(capsys, message)
    assert not (tmp_path / "exp" / "last.ckpt").exists()


def test_a_folder_of_another_task_is_refused(cifar, tmp_path, capsys):
    assert train(SPEECH, cifar.mixed) == 1
    one_line(capsys, cifar.mixed, "holds a run with task = classification, now separation")
    shutil.copytree(cifar.mixed, tmp_path / "speech")
    (tmp_path / "speech" / "config.yaml").write_text(f"task: separation\n{SPEECH.read_text()}")
    assert train(cifar.config, tmp_path / "speech") == 1
    one_line(capsys, tmp_path / "speech", "holds a run with task = separation, now classification")


def test_a_folder_of_speech_from_before_there_were_tasks_is_refused(cifar, tmp_path, capsys):
    shutil.copytree(cifar.mixed, tmp_path / "speech")
    shutil.copy(SPEECH, tmp_path / "speech" / "config.yaml")
    assert train(cifar.config, tmp_path / "speech") == 1
    one_line(capsys, tmp_path / "speech", "holds a run with task = separation, now classification")


def test_another_experiment_in_the_same_folder_is_refused(cifar, capsys):
    assert train(cifar.config, cifar.mixed, "--data.crop_padding", "3") == 1
    one_line(capsys, "holds a run with data.crop_padding = 2, now 3")
