"""Deep mutual learning of classifiers against numbers worked out by hand, SciPy's divergence and training in plain PyTorch."""

import math

import numpy as np
import pytest
import torch
from scipy.special import entr, rel_entr, softmax
from torch import Tensor, nn
from torch.nn import functional

from sepml.mutual import UNGATED, Cohort, MechanismName, Rules, StepReport, mechanism_named
from sepml.mutual.logits import entropy
from sepml.vision.task import ClassificationTask, ImageBatch

LR = 0.1
# Two-class logits of which the probabilities are simple fractions.
THREE_QUARTERS, HALF, TENTH = [math.log(3.0), 0.0], [0.0, 0.0], [0.0, math.log(9.0)]


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The divergence.


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (HALF, THREE_QUARTERS, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        (THREE_QUARTERS, HALF, 0.5 * math.log(2 / 3) + 0.5 * math.log(2.0)),
        (TENTH, THREE_QUARTERS, 0.75 * math.log(7.5) + 0.25 * math.log(0.25 / 0.9)),
        (HALF, HALF, 0.0),
    ],
)
def test_the_divergence_is_that_of_the_student_from_the_teacher(student, teacher, expected):
    got = ClassificationTask().mimic_loss(torch.tensor([student] * 3), torch.tensor([teacher] * 3))
    assert got.tolist() == pytest.approx([expected] * 3, abs=1e-6), "per example and summed over classes"
    if expected:
        back = ClassificationTask().mimic_loss(torch.tensor([teacher]), torch.tensor([student]))
        assert abs(float(back) - expected) > 0.01, "the numbers tell the directions apart"


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_scipys(temperature):
    student, teacher = logits(16, 7), logits(16, 7, seed=1)
    p, q = (softmax(each.double().numpy() / temperature, axis=1) for each in (teacher, student))
    got = ClassificationTask(temperature).mimic_loss(student, teacher)
    np.testing.assert_allclose(got.numpy(), temperature**2 * rel_entr(p, q).sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_entropy_is_scipys(temperature):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = entr(softmax(logits.numpy() / temperature, axis=1)).sum(1)
    np.testing.assert_allclose(entropy(logits, temperature).numpy(), expected, rtol=1e-12)


def test_a_high_temperature_matches_logits():
    """Hinton et al., 2015, section 2.1: with T^2 the gradient does not vanish, it becomes the difference of centred logits."""
    student, teacher = logits(4, 5).requires_grad_(), logits(4, 5, seed=1)
    ClassificationTask(1000.0).mimic_loss(student.double(), teacher.double()).sum().backward()
    centred = [each.detach() - each.detach().mean(1, keepdim=True) for each in (student, teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 5, rtol=0, atol=0.02)


def test_a_class_that_is_as_good_as_impossible_costs_a_finite_loss():
    far = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    for teacher in (far.detach().flip(1), far.detach()):
        loss = ClassificationTask().mimic_loss(far, teacher)
        (gradient,) = torch.autograd.grad(loss.sum(), far)
        assert loss.isfinite().all() and gradient.isfinite().all()


# The other parts of the task.


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_supervised_loss_is_cross_entropy_with_smoothed_labels(smoothing):
    prediction, labels = logits(12, 5), torch.arange(12) % 5
    got = ClassificationTask(label_smoothing=smoothing).supervised_loss(prediction, ImageBatch(None, labels))
    assert got.shape == (12,)
    torch.testing.assert_close(got.mean(), nn.CrossEntropyLoss(label_smoothing=smoothing)(prediction, labels))
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    np.testing.assert_allclose(got, -(target * np.log(softmax(prediction.double().numpy(), axis=1))).sum(1), rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_average_has_the_mean_of_the_probabilities(temperature):
    """DML_e. It is a prediction, so at the task's temperature it is looked at as any other one."""
    predictions = logits(3, 6, 5)
    shares = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
    shares = shares / shares.sum(0)
    mean = ClassificationTask(temperature).average(predictions, shares[:, None])
    probabilities = softmax(predictions.double().numpy() / temperature, axis=2)
    expected = (shares[..., None].double().numpy() * probabilities).sum(0)
    np.testing.assert_allclose(softmax(mean.double().numpy() / temperature, axis=1), expected, rtol=1e-4, atol=1e-7)
    # As a teacher it is the mixture, of which the divergence is SciPy's.
    student = logits(6, 5, seed=2)
    loss = ClassificationTask(temperature).mimic_loss(student, mean)
    q = softmax(student.double().numpy() / temperature, axis=1)
    np.testing.assert_allclose(loss, temperature**2 * rel_entr(expected, q).sum(1), rtol=1e-3, atol=1e-5)


def test_a_teacher_without_a_share_may_be_nan():
    predictions = logits(3, 2, 4)
    shares = torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.5, 1.0]])
    expected = torch.stack([predictions[[0, 2], 0].softmax(1).mean(0), predictions[2, 1].softmax(0)])
    predictions[1], predictions[0, 1] = math.nan, math.nan
    torch.testing.assert_close(ClassificationTask().average(predictions, shares[:, None]).softmax(1), expected)


def test_the_average_of_impossible_classes_is_finite():
    mean = ClassificationTask().average(torch.tensor([[[1e4, 0.0]], [[1e4, 0.0]]]), torch.full((2, 1, 1), 0.5))
    assert mean.isfinite().all() and mean.softmax(1)[0].tolist() == pytest.approx([1.0, 0.0])


def test_the_confidence_is_the_probability_of_the_likeliest_class_right_or_wrong():
    prediction = torch.tensor([THREE_QUARTERS, HALF, TENTH])
    for temperature in (1.0, 5.0):
        got = ClassificationTask(temperature).confidence([prediction], ImageBatch(None, torch.tensor([1, 1, 1])))[0]
        assert got.tolist() == pytest.approx([0.75, 0.5, 0.9], abs=1e-6)


def test_the_score_is_the_accuracy_in_percent():
    prediction = torch.tensor([THREE_QUARTERS, TENTH, TENTH, THREE_QUARTERS])
    got = ClassificationTask().score(prediction, ImageBatch(None, torch.tensor([0, 1, 0, 0])))
    assert got.tolist() == [100.0, 100.0, 0.0, 100.0] and float(got.mean()) == 75.0


# Steps of softmax regression.


def regressions(n_peers: int) -> list[nn.Linear]:
    peers = []
    for k in range(n_peers):
        torch.manual_seed(k)
        peers.append(nn.Linear(4, 3, bias=False))
    return peers


def examples(n: int = 6, seed: int = 9) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    return ImageBatch(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator))


def step(
    peers: list[nn.Module],
    batch: ImageBatch,
    mechanism: MechanismName = "ml",
    threshold: float = UNGATED,
    **options: str | float,
) -> StepReport:
    """One step with weight 0.7; `options` are the task's temperature and those of `Rules`."""
    task = ClassificationTask(options.pop("temperature", 1.0))
    optimizers = [torch.optim.SGD(peer.parameters(), lr=LR) for peer in peers]
    rules = Rules(mechanism_named(mechanism), **options)
    return Cohort(task, peers, optimizers, rules, math.inf).step(batch, threshold, 0.7)


def probabilities(w: np.ndarray, batch: ImageBatch, temperature: float = 1.0) -> np.ndarray:
    return softmax(batch.images.double().numpy() @ w.T / temperature, axis=1)


def stepped(
    w: np.ndarray, teachers: list[np.ndarray], batch: ImageBatch, temperature: float = 1.0, gate: np.ndarray | float = 1.0
) -> np.ndarray:
    """w after a step: d/dlogits is (p - one-hot) for the labels and T (p - p_teacher), both at T, for a teacher's mean."""
    residual = probabilities(w, batch) - np.eye(3)[batch.labels]
    for teacher in teachers:
        apart = probabilities(w, batch, temperature) - probabilities(teacher, batch, temperature)
        residual = residual + 0.7 * temperature * np.asarray(gate) * apart / len(teachers)
    return w - LR * residual.T @ batch.images.double().numpy() / len(batch.labels)


def in_numpy(peers: list[nn.Linear]) -> list[np.ndarray]:
    return [peer.weight.detach().double().numpy() for peer in peers]


def assert_weights(peers: list[nn.Linear], expected: list[np.ndarray]) -> None:
    for got, each in zip(in_numpy(peers), expected, strict=True):
        np.testing.assert_allclose(got, each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("n_peers", [2, 3])
def test_a_step_of_mutual_learning_is_the_one_worked_out_by_hand(n_peers, temperature):
    """So the teachers take no gradient, and with K peers each divergence counts 1 / (K - 1): equations 6 to 8."""
    peers, batch = regressions(n_peers), examples()
    old = in_numpy(peers)
    report = step(peers, batch, temperature=temperature)
    others = [[old[j] for j in range(n_peers) if j != k] for k in range(n_peers)]
    assert_weights(peers, [stepped(old[k], others[k], batch, temperature) for k in range(n_peers)])
    for k in range(n_peers):
        assert np.abs(stepped(old[k], [], batch) - stepped(old[k], others[k], batch, temperature)).max() > 1e-3
        p, q = ([probabilities(w, batch, temperature) for w in those] for those in (others[k], [old[k]]))
        divergence = temperature**2 * np.mean([rel_entr(each, q[0]).sum(1).mean() for each in p])
        assert float(report.mimic[k]) == pytest.approx(divergence, rel=1e-4)
        own = -np.log(probabilities(old[k], batch)[range(6), batch.labels]).mean()
        assert float(report.loss[k]) == pytest.approx(own + 0.7 * divergence, rel=1e-5)


def test_a_teacher_that_only_teaches_learns_nothing_from_its_students():
    peers, alone, batch = regressions(2), regressions(2), examples()
    step(peers, batch, "kd")
    step(alone, batch, "solo")
    assert torch.equal(peers[1].weight, alone[1].weight), "what it taught left no gradient"
    assert not torch.equal(peers[0].weight, alone[0].weight)


def test_alternating_peers_are_taught_by_the_step_just_made():
    """Algorithm 1: the second network learns from the first one's new predictions."""
    peers, batch = regressions(2), examples()
    old = in_numpy(peers)
    step(peers, batch, updates="alternating")
    first = stepped(old[0], [old[1]], batch)
    assert_weights(peers, [first, stepped(old[1], [first], batch)])
    assert np.abs(stepped(old[1], [first], batch) - stepped(old[1], [old[0]], batch)).max() > 1e-4


def test_the_mean_teacher_is_the_mean_of_probabilities():
    """DML_e, section 3.4."""
    peers, batch = regressions(3), examples()
    old = in_numpy(peers)
    report = step(peers, batch, teacher="mean")
    for k in range(3):
        mean = sum(probabilities(old[j], batch) for j in range(3) if j != k) / 2
        q = probabilities(old[k], batch)
        assert float(report.mimic[k]) == pytest.approx(rel_entr(mean, q).sum(1).mean(), rel=1e-4)
        residual = q - np.eye(3)[batch.labels] + 0.7 * (q - mean)
        expected = old[k] - LR * residual.T @ batch.images.double().numpy() / 6
        np.testing.assert_allclose(in_numpy(peers)[k], expected, rtol=0, atol=1e-6)


def test_a_gate_at_0_9_opens_for_the_examples_above_it_alone():
    peers = regressions(2)
    batch = ImageBatch(5 * examples(8).images, examples(8).labels)
    old = in_numpy(peers)
    sure = [probabilities(w, batch).max(1) >= 0.9 for w in old]
    assert all(0 < gate.sum() < 8 for gate in sure) and (sure[0] != sure[1]).any()
    report = step(peers, batch, "sml", 0.9)
    assert report.gate_open.tolist() == pytest.approx([gate.mean() for gate in sure])
    assert_weights(peers, [stepped(old[k], [old[1 - k]], batch, gate=sure[1 - k][:, None]) for k in (0, 1)])


# Against plain training.


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def trained_together(n_peers: int, seeds: list[int], weight: float) -> tuple[list[nn.Module], StepReport]:
    peers = [classifier(seed) for seed in seeds[:n_peers]]
    optimizers = [torch.optim.SGD(peer.parameters(), lr=LR, momentum=0.9) for peer in peers]
    cohort = Cohort(ClassificationTask(), peers, optimizers, Rules(mechanism_named("ml")), math.inf)
    reports = [cohort.step(examples(8, seed), UNGATED, weight) for seed in range(20)]
    return peers, reports[-1]


def trained_plainly() -> nn.Module:
    network = classifier()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)
    for seed in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(network(examples(8, seed).images), examples(8, seed).labels).backward()
        optimizer.step()
    return network


def test_one_peer_is_plain_training_bit_for_bit():
    (peer,), _ = trained_together(1, [0], weight=1.0)
    for got, expected in zip(peer.state_dict().values(), trained_plainly().state_dict().values(), strict=True):
        assert torch.equal(got, expected)
    assert not torch.equal(peer[0].weight, classifier()[0].weight)


def test_peers_that_start_and_go_alike_have_nothing_to_teach():
    peers, report = trained_together(3, [0, 0, 0], weight=10.0)
    for peer in peers:
        for got, expected in zip(peer.parameters(), trained_plainly().parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert report.mimic.abs().max() < 1e-6
    others, report = trained_together(3, [0, 1, 2], weight=10.0)
    assert report.mimic.min() > 1e-4
    assert (others[0][0].weight - peers[0][0].weight).abs().max() > 0.01, "others do teach"
