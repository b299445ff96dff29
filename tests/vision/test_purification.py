"""Losses of NT-ML and NAD by hand, pruning of a network made by hand, and defences by `sepml train`, `evaluate` and `study`."""

import math

import image_files  # noqa: F401  (skips these tests where the extra `vision` is not installed)
import numpy as np
import pytest
import torch
import yaml
from image_training import evaluate, history, one_line, same_run, train, written
from torch import nn

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
from sepml.study.scores import read_run_scores
from sepml.training import fit
from sepml.vision.experiment import load_experiment
from sepml.vision.networks import Classifier, NetworkConfig, build_network, load_network
from sepml.vision.purification import Attended, AttentionTask, NonTargetTask, prune
from sepml.vision.task import ImageBatch
from sepml.vision.triggers import triggered

FIT = {"epochs": 2, "precision": "32-true", "tensorboard": False, "keep": "last", "clip_norm": None}
FIT |= {"optimizer": {"kind": "sgd"}, "learning_rate": {"peak": 0.05, "kind": "constant"}}
TRIGGER = {"kind": "badnets", "target": 3, "fraction": 0.3}
DATA = {"kind": "mnist", "labels": 60, "held_out": 20, "tested": 50, "batch_size": 20, "trigger": TRIGGER}


def batch_of(labels: list[int]) -> ImageBatch:
    return ImageBatch(torch.zeros(len(labels), 1, 4, 4), torch.tensor(labels))


def test_the_non_target_loss_is_the_divergence_of_the_softmax_over_the_other_classes():
    student = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]], dtype=torch.double)
    teacher = torch.tensor([[5.0, 1.0, 1.0], [0.0, 7.0, 2.0]], dtype=torch.double)
    # Of the first image, classes 1 and 2; of the second, 0 and 2.
    pairs = [((1.0, 2.0), (1.0, 1.0)), ((3.0, 0.5), (0.0, 2.0))]
    wanted = []
    for own, other in pairs:
        p, q = (1 / (1 + math.exp((a[1] - a[0]) / 2)) for a in (own, other))
        wanted.append(4 * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))))
    found = NonTargetTask(temperature=2.0).mimic_loss(student, teacher, batch_of([0, 1]))
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.double), atol=1e-12)


def test_the_non_target_loss_does_not_depend_on_the_label_s_logit():
    student = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    NonTargetTask().mimic_loss(student, teacher, batch_of([0, 1, 2, 4])).sum().backward()
    assert (student.grad[range(4), [0, 1, 2, 4]] == 0).all() and student.grad.abs().sum() > 0.1


def test_a_step_of_non_target_training_by_hand():
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3).requires_grad_(False)
    inputs, labels = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    weight = student.weight.detach().clone().requires_grad_()
    logits, taught = inputs @ weight.T + student.bias.detach(), inputs @ teacher.weight.T + teacher.bias
    loss = torch.zeros(())
    for own, other, label in zip(logits.softmax(1), taught.softmax(1), labels, strict=True):
        q, p = (torch.cat([each[:label], each[label + 1 :]]) for each in (own, other))
        q, p = q / q.sum(), p / p.sum()
        loss = loss + (-own[label].log() + 2 * (p * (p / q).log()).sum()) / 5
    loss.backward()
    optimizers = [torch.optim.SGD(student.parameters(), lr=0.1), None]
    cohort = Cohort(NonTargetTask(), [student, teacher], optimizers, Rules(mechanism_named("kd")), math.inf)
    report = cohort.step(ImageBatch(inputs, labels), UNGATED, weight=2.0)
    assert torch.isclose(report.loss[0], loss.detach()) and torch.isnan(report.loss[1])
    assert torch.allclose(student.weight, weight.detach() - 0.1 * weight.grad, atol=1e-7)


def test_attention_is_the_normalised_sum_of_squares_of_the_last_output_of_each_resolution():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    model = Classifier(NetworkConfig("small", 2, 1, (4, 4)), layers)
    images = torch.rand(2, 1, 4, 4)
    found = AttentionTask().predict(model, ImageBatch(images, torch.tensor([0, 1])))
    outputs = layers[:2](images), layers[:3](images)
    for map_, output, pixels in zip(found.maps, outputs, (16, 4), strict=True):
        energy = (output**2).sum(1).reshape(2, pixels)
        assert torch.allclose(map_, energy / (energy**2).sum(1, keepdim=True).sqrt())
    assert torch.equal(found.logits, layers(images)) and not any(layer._forward_hooks for layer in layers)


def test_images_of_which_no_map_has_two_pixels_are_refused():
    model = build_network(NetworkConfig("small", 2, 1, (1, 1)))
    with pytest.raises(SepmlError, match="network 'small' has no attention maps of images of 1x1 pixels, expected larger"):
        AttentionTask().predict(model, ImageBatch(torch.rand(2, 1, 1, 1), torch.tensor([0, 1])))


def test_the_attention_loss_is_the_distance_of_maps_summed_over_layers():
    logits = torch.zeros(1, 2)
    one = Attended(logits, (torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0, 0.0]])))
    other = Attended(logits, (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])))
    found = AttentionTask().mimic_loss(one, other)
    assert torch.allclose(found, torch.tensor([math.sqrt(0.16 + 0.64) + math.sqrt(2)]))
    assert AttentionTask().mimic_loss(one, one).item() == 0
    both = Attended(torch.zeros(2, 1, 2), tuple(torch.stack(pair) for pair in zip(one.maps, other.maps, strict=True)))
    mean = AttentionTask().average(both, torch.tensor([[[0.25]], [[0.75]]]))
    assert torch.allclose(mean.maps[0], torch.tensor([[0.9, 0.2]])) and torch.allclose(
        mean.logits.softmax(1), torch.tensor(0.5)
    )


def hand_made() -> Classifier:
    """Channels that are 1, 4, 2 and 3 times the image, and whose scores add up."""
    conv, norm, linear = nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 4.0, 2.0, 3.0]).reshape(4, 1, 1, 1))
        linear.weight.fill_(1)
        linear.bias.zero_()
    layers = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    return Classifier(NetworkConfig("small", 2, 1, (2, 2)), layers)


def test_the_least_active_channels_are_pruned_and_stay_so():
    model = hand_made()
    images = [torch.ones(3, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)]
    prune(model, images, 0.5)
    assert model.training and model.network[1].num_batches_tracked == 0, "as a classifier computes that is not trained"
    model.eval()
    assert torch.allclose(model(images[0]), torch.tensor(7.0), atol=1e-3), "channels of 4 and 3 are left"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(4, 1, 2, 2)), torch.tensor([0, 1, 0, 0])).backward()
        optimizer.step()
    norm = model.network[1]
    assert (norm.weight[[0, 2]] == 0).all() and (norm.bias[[0, 2]] == 0).all() and (norm.weight[[1, 3]] != 1).all()


def test_a_network_with_shortcuts_cannot_be_pruned():
    with pytest.raises(SepmlError, match="network 'resnet32' cannot be pruned, expected one without shortcuts"):
        prune(build_network(NetworkConfig("resnet32", 10, 1, (8, 8))), [torch.rand(2, 1, 8, 8)], 0.5)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, digits):
    out = tmp_path_factory.mktemp("attacked")
    config = written(out / "config.yaml", data=DATA, peers=[{"network": "small"}], cohort={"mechanism": "solo"}, fit=FIT)
    assert train(config, out / "exp") == 0
    return config, out / "exp"


def defence(exp, **teacher) -> tuple[str, ...]:
    peers = [{"network": "small", "init": str(exp)}, {"network": "small", **teacher}]
    return "--peers", str(peers), "--data.trigger.fraction", "0", "--cohort", "{mechanism: kd, weight: 1}"


def test_evaluate_measures_the_attack(attacked, tmp_path):
    [row] = evaluate(attacked[1], tmp_path / "out")
    experiment, sets, [model] = load_experiment(attacked[1])
    others = sets.test.labels != 3
    images = triggered(sets.test.images[others], experiment.data.trigger) / 255
    pixels = torch.from_numpy((images[:, None] - 0.1307) / 0.3081).float()
    with torch.no_grad():
        success = 100 * (model(pixels).argmax(1) == 3).float().mean()
    assert abs(float(row["attack_success"]) - success) < 1e-3 and set(row) == {"peer", "accuracy", "attack_success"}


@pytest.mark.parametrize("mimic", ["non_target", "attention"])
def test_a_defence_stopped_and_gone_on_with_is_never_having_stopped(attacked, tmp_path, monkeypatch, mimic):
    words = (
        *defence(attacked[1], init=str(attacked[1]), frozen=True),
        "--classification.mimic",
        mimic,
        "--peers.0.pruned",
        "0.25",
    )
    assert train(attacked[0], tmp_path / "whole", *words) == 0
    save = fit.save

    def interrupted(*arguments):
        save(*arguments)
        monkeypatch.setattr(fit, "save", save)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save", interrupted)
    assert train(attacked[0], tmp_path / "stopped", *words) == 130
    assert train(attacked[0], tmp_path / "stopped", *words) == 0
    assert same_run(tmp_path / "whole", tmp_path / "stopped")
    first, last = history(tmp_path / "whole")[0], history(tmp_path / "whole")[-1]
    assert float(first["mimic"]) > 0 and last["train_cross_entropy"] == "nan", "the teacher is frozen"
    [silent] = [(network.network[7].weight == 0).sum() for network in [load_network(tmp_path / "whole/peer1")]]
    assert silent == 16
    teacher, origin = (load_network(folder).state_dict() for folder in (tmp_path / "whole/peer2", attacked[1] / "peer1"))
    assert all(torch.equal(teacher[name], origin[name]) for name in origin)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--peers.0.frozen", "true"), "'peers.0.frozen' is set, but without 'init' its weights are drawn at random"),
        (("--peers.0.pruned", "0.5"), "'peers.0.pruned' is set, but without 'init' its weights are drawn at random"),
        (("--peers.0.frozen", "true", "--peers.0.init", "EXP"), "all peers are frozen, expected one or more that learn"),
        (("--data.kind", "cifar10"), "data.trigger is for research on defences with toy data, expected data.kind mnist"),
        (("--data.trigger.target", "10"), "data.trigger.target is 10, expected a class from 0 to 9"),
        (("--data.trigger.kind", "sgi"), "'data.trigger.kind': input should be 'badnets', 'blended', 'sig' or 'wanet'"),
        (("--data.trigger.square", "28"), "data.trigger.square is 28, expected less than the images' 28 pixels"),
        (("--classification.mimic", "attention", "--peers", "[{network: small}, {network: resnet20}]"), "of one architecture"),
        (("--classification.mimic", "attention", "--views", "{widths: [0.5, 1], resolutions: [28, 20]}"), "without views"),
        (("--data.tested", "2010"), "200 images of class 0, 201 expected for 2010 labels"),
    ],
)
def test_bad_settings_of_a_defence(attacked, tmp_path, capsys, words, message):
    words = [str(attacked[1]) if word == "EXP" else word for word in words]
    assert train(attacked[0], tmp_path / "exp", *words) == 1
    one_line(capsys, message)


def study(folder, base, **changes) -> int:
    (folder / "base.yaml").write_text(yaml.safe_dump({**yaml.safe_load(base.read_text()), "fit": {**FIT, "epochs": 1}}))
    clean = {"data.trigger.fraction": 0, "cohort": {"mechanism": "kd", "weight": 1}, "classification.mimic": "non_target"}
    peers = [{"network": "small", "init": f"{{run:{name}}}"} for name in ("none", "fine")]
    variants = {"nt": {**clean, "peers": peers}, "none": {}, "fine": {"data.trigger.fraction": 0, "peers": peers[:1]}}
    tests = {"accuracy": "accuracy", "attack": "attack_success"}
    plan = {"base": "base.yaml", "seeds": [4], "variants": variants, "tests": tests, **changes}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return main(["study", str(folder / "plan.yaml"), "-o", str(folder / "out"), "-j", "1", "-d", "cpu", "-q"])


def test_a_study_of_runs_that_begin_with_other_runs(attacked, tmp_path):
    assert study(tmp_path, attacked[0]) == 0
    init = yaml.safe_load((tmp_path / "out/runs/nt/seed4/config.yaml").read_text())["peers"][1]["init"]
    assert init == str(tmp_path / "out/runs/fine/seed4")
    assert '"init": "{run:fine}"' in (tmp_path / "out/results/nt/seed4.json").read_text(), "wherever the study is"
    scores = read_run_scores(tmp_path / "out/results/nt/seed4.csv", ("example", "group"))
    found = {row["peer"]: row for row in evaluate(tmp_path / "out/runs/nt/seed4", tmp_path / "evaluated")}
    for test, column, images in (("accuracy", "accuracy", 50), ("attack", "attack_success", 45)):
        for peer, name in (("peer1", "1"), ("peer2", "2"), ("average", "all")):
            values = scores[test].columns[peer]
            assert len(values) == images and np.isclose(values.mean(), float(found[name][column]), atol=1e-3)


def test_attack_success_needs_a_trigger(attacked, tmp_path, capsys):
    assert study(tmp_path, attacked[0], variants={"clean": {"data.trigger": None}}) == 1
    assert "plan.yaml: tests.attack: attack_success needs data.trigger, which is not set" in capsys.readouterr().err
