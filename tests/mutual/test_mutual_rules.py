"""Who learns from whom and when, against steps worked out by hand: updates, teachers, views of one network."""

import math
from dataclasses import replace

import pytest
import torch
from linear_task import Regression, Sure, batch, cohort, gradient_by_hand, linear, weights_of
from torch import Tensor, nn
from torch.nn import functional

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, Rules, StepReport, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.task import SeparationTask

LR = 0.1


# Alternating updates.


def test_alternating_peers_see_the_new_predictions_of_those_before_them_and_the_old_ones_of_those_after():
    peers, together = linear(3), linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 5)
    cohort(peers, "ml", updates="alternating").step(b, UNGATED, 0.3)
    assert not b["confidence"], "3 predictions before the step, 2 after one's own for those to come"
    half = torch.full((4,), 0.5)
    new = []
    for k in range(3):
        now = [*new, *old[k:]]
        teach = [(now[j], half) for j in range(3) if j != k]
        new.append(old[k] - LR * gradient_by_hand(old[k], b, teach, 0.3))
    for peer, expected in zip(peers, new, strict=True):
        torch.testing.assert_close(peer.weight.detach(), expected)
    cohort(together, "ml").step(batch([[0.0] * 4] * 3), UNGATED, 0.3)
    assert torch.equal(peers[0].weight, together[0].weight), "the first one's turn is the same"
    for k in (1, 2):
        assert (peers[k].weight - together[k].weight).norm() > 1e-3


def test_alternating_gates_are_renewed_with_the_predictions():
    peers = linear(2)
    old = weights_of(peers)
    b = batch([[0.0]])
    first = old[0] - LR * gradient_by_hand(old[0], b, [], 0.0)
    sure = [float(-(b["x"] @ w.T - b["y"]).square()) for w in (old[0], first)]
    assert sure[0] < sure[1]
    threshold = sum(sure) / 2
    assert float(-(b["x"] @ old[1].T - b["y"]).square()) < threshold, "peer 2 does not teach peer 1"
    report = cohort(peers, "sml", task=Sure(), updates="alternating").step(b, threshold, 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), first)
    second = old[1] - LR * gradient_by_hand(old[1], b, [(first, torch.ones(1))], 0.3)
    torch.testing.assert_close(peers[1].weight.detach(), second)
    assert report.gate_open.tolist() == [0, 0], "the report is of the predictions before the step"
    assert float(report.mimic[1]) == pytest.approx(float((b["x"] @ (old[1] - first).T).square()), rel=1e-5)
    assert report.mimic[0].isnan()


def test_alternating_gates_are_renewed_example_by_example():
    peers = linear(2)
    old = weights_of(peers)
    b = batch([[20.0, 0.0, 20.0], [0.0, 20.0, 0.0], [0.0, 20.0, 20.0]])
    cohort(peers, "sml", updates="alternating").step(b, 15.0, 0.3)
    first = old[0] - LR * gradient_by_hand(old[0], b, [(old[1], torch.tensor([0.0, 1, 0]))], 0.3)
    second = old[1] - LR * gradient_by_hand(old[1], b, [(first, torch.tensor([0.0, 1, 1]))], 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), first)
    torch.testing.assert_close(peers[1].weight.detach(), second)


@pytest.mark.parametrize(("mechanism", "n_peers"), [("solo", 3), ("ml", 1), ("kd", 3), ("inplace", 2)])
def test_where_nobody_listens_to_one_before_alternating_is_simultaneous_bit_for_bit(mechanism, n_peers):
    runs = []
    for updates in ("simultaneous", "alternating"):
        peers = linear(n_peers)
        team = cohort(peers, mechanism, task=Sure(), updates=updates)
        team.optimizers = [torch.optim.Adam(peer.parameters(), lr=0.01) for peer in peers]
        runs.append((peers, [team.step(batch([[0.0] * 5], seed=seed), -3.0, 0.3) for seed in range(10)]))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(a.weight, b.weight)
    for name in vars(runs[0][1][0]):
        torch.testing.assert_close(*(getattr(reports[-1], name) for _, reports in runs), rtol=0, atol=0, equal_nan=True)


class Normed(nn.Module):
    """A linear network of normed inputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.weights = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights(self.norm(x))


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_batch_norms_count_a_step_once_though_a_peer_predicts_again_after_it(updates):
    peers = [Normed(seed) for seed in range(3)]
    team = cohort(peers, "ml", task=Sure(), updates=updates)
    mean, var = torch.zeros(3), torch.ones(3)
    for seed in range(4):
        b = batch([[0.0] * 6], seed=seed)
        team.step(b, UNGATED, 0.3)
        mean, var = 0.9 * mean + 0.1 * b["x"].mean(0), 0.9 * var + 0.1 * b["x"].var(0)
    for peer in peers:
        assert peer.norm.num_batches_tracked == 4
        torch.testing.assert_close(peer.norm.running_mean, mean)
        torch.testing.assert_close(peer.norm.running_var, var)
        assert peer.norm.track_running_stats, "the next step counts"


# In-place distillation.


def test_inplace_students_learn_from_the_teacher_alone_and_the_teacher_from_the_references():
    peers = linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 3)
    report = cohort(peers, "inplace").step(b, UNGATED, 0.7)
    for k in (0, 1):
        mimic = gradient_by_hand(old[k], b, [(old[2], torch.ones(4))], 0.7, own=0.0)
        torch.testing.assert_close(peers[k].weight.detach(), old[k] - LR * mimic)
        distance = float((b["x"] @ (old[k] - old[2]).T).square().mean())
        assert (float(report.mimic[k]), float(report.loss[k])) == pytest.approx((distance, 0.7 * distance), rel=1e-5)
    own = gradient_by_hand(old[2], b, [], 0.0)
    torch.testing.assert_close(peers[2].weight.detach(), old[2] - LR * own)
    assert report.supervised.isnan().tolist() == [True, True, False]
    assert float(report.supervised[2]) == pytest.approx(float((b["x"] @ old[2].T - b["y"]).square().mean()), rel=1e-5)
    assert report.mimic.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("rules", [{}, {"teacher": "mean"}, {"updates": "alternating"}])
def test_inplace_students_whom_nobody_teaches_stay_where_they_are(rules):
    peers, alone = linear(3), linear(3)
    old = weights_of(peers)
    report = cohort(peers, "inplace", **rules).step(batch([[0.0] * 4] * 5), 15.0, 0.7)
    cohort(alone, "solo").step(batch([[0.0] * 4] * 3), 15.0, 0.7)
    assert torch.equal(peers[0].weight, old[0]) and torch.equal(peers[1].weight, old[1])
    assert torch.equal(peers[2].weight, alone[2].weight)
    assert report.loss[:2].tolist() == [0, 0] and report.grad_norm[:2].tolist() == [0, 0]
    assert not report.skipped.any()


def test_inplace_needs_a_student():
    assert [mechanism_named("inplace").is_supervised(peer, 3) for peer in range(3)] == [False, False, True]
    assert all(mechanism_named("kd").is_supervised(peer, 3) for peer in range(3))
    assert mechanism_named("inplace").listens(3).tolist() == mechanism_named("kd").listens(3).tolist()
    with pytest.raises(SepmlError, match=r"'inplace' needs a teacher beside the student: 2 peers or more, got 1"):
        mechanism_named("inplace").listens(1)


# Each teacher, or their mean.


class Quartic(Sure):
    """Of squared distances, the mean of those to each teacher has the gradient of that to their mean; of these not."""

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: dict) -> Tensor:
        return (student - teacher).pow(4).sum(1)


@pytest.mark.parametrize("mechanism", ["kd", "ml", "sml"])
def test_the_mean_of_one_teacher_is_that_teacher_bit_for_bit(mechanism):
    runs = []
    for teacher in ("each", "mean"):
        peers = linear(2)
        team = cohort(peers, mechanism, task=Quartic(), teacher=teacher, lr=0.01)
        runs.append((peers, [team.step(batch([[0.0] * 6], seed=seed), -1.0, 0.01) for seed in range(10)]))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(a.weight, b.weight)
    gates = torch.stack([report.gate_open[1] for report in runs[0][1]])
    assert gates.min() < gates.max(), "some gates are open and some closed"


def test_the_mean_teacher_of_three_peers_is_the_gradient_worked_out_by_hand():
    peers = linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 3)
    report = cohort(peers, "ml", task=Quartic(), teacher="mean").step(b, UNGATED, 0.3)
    for k in range(3):
        mean = sum(old[j] for j in range(3) if j != k) / 2
        distance = b["x"] @ (old[k] - mean).T
        residual = 2 * (b["x"] @ old[k].T - b["y"]) + 0.3 * 4 * distance.pow(3)
        torch.testing.assert_close(peers[k].weight.detach(), old[k] - LR * (residual * b["x"]).mean(0, keepdim=True))
        assert float(report.mimic[k]) == pytest.approx(float(distance.pow(4).mean()), rel=1e-5)


def test_the_mean_is_that_of_the_open_teachers_and_weighs_their_share():
    peers = linear(3)
    old = weights_of(peers)
    # Peer 1 has both teachers on example 1, peer 2 alone on example 2, peer 3 alone on example 3, nobody on example 4.
    b = batch([[0.0] * 4, [20.0, 20.0, 0.0, 0.0], [20.0, 0.0, 20.0, 0.0]])
    report = cohort(peers, "sml", teacher="mean").step(b, 15.0, 0.3)
    taught = torch.stack([old[1] + old[2], 2 * old[1], 2 * old[2]])[:, 0] / 2
    distance = b["x"] @ old[0].T
    distance = distance - torch.cat([(b["x"][:3] * taught).sum(1, keepdim=True), distance[3:]])
    share = torch.tensor([1.0, 0.5, 0.5, 0.0])[:, None]
    residual = 2 * (b["x"] @ old[0].T - b["y"]) + 0.3 * share * 2 * distance
    torch.testing.assert_close(peers[0].weight.detach(), old[0] - LR * (residual * b["x"]).mean(0, keepdim=True))
    expected = float((share * distance.square()).sum() / share.sum())
    assert float(report.mimic[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("teacher", ["each", "mean"])
def test_a_teacher_that_is_nan_and_gated_out_leaks_nothing(teacher):
    peers = linear(3)
    with torch.no_grad():
        peers[2].weight.fill_(math.nan)
    old = weights_of(peers)
    b = batch([[0.0] * 3, [20.0] * 3, [math.nan] * 3])
    report = cohort(peers, "sml", teacher=teacher).step(b, 15.0, 0.3)
    gradient = gradient_by_hand(old[0], b, [(old[1], torch.full((3,), 0.5))], 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), old[0] - LR * gradient)
    assert report.skipped.tolist() == [False, False, True]


# Views of one network.


class Masked(nn.Module):
    """A linear network that looks at some of its inputs; the others may be nan."""

    def __init__(self, network: nn.Linear, keep: list[int]) -> None:
        super().__init__()
        self.network, self.keep = network, keep

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x[:, self.keep], self.network.weight[:, self.keep])


def two_views(clip_norm: float) -> tuple[nn.Linear, Cohort]:
    """Of 4 inputs the first 2 and the last 3."""
    (network,) = linear(1, size=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    views = [Masked(network, [0, 1]), Masked(network, [1, 2, 3])]
    return network, Cohort(Regression(), views, [optimizer, optimizer], Rules(mechanism_named("ml")), clip_norm)


@pytest.mark.parametrize("clip_norm", [math.inf, 1e9, 0.5])
def test_views_of_one_network_add_their_gradients_clip_them_once_and_make_one_step(clip_norm):
    network, team = two_views(clip_norm)
    (old,) = weights_of([network])
    masks = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 1]])
    b = batch([[0.0] * 5] * 2, size=4)
    report = team.step(b, UNGATED, 0.3)
    gradient = torch.zeros_like(old)
    for k in (0, 1):
        seen, teacher = b["x"] * masks[k], b["x"] * masks[1 - k]
        residual = 2 * (seen @ old.T - b["y"]) + 0.3 * 2 * (seen @ old.T - teacher @ old.T)
        gradient += (residual * seen).mean(0)
    norm = float(gradient.norm())
    assert norm > 0.6, "the small clip norm clips"
    torch.testing.assert_close(network.weight.detach(), old - LR * gradient * min(1.0, clip_norm / norm), rtol=1e-5, atol=1e-6)
    assert report.grad_norm.tolist() == pytest.approx([norm, norm], rel=1e-5)
    assert not torch.equal(report.loss[0], report.loss[1]), "each view reports its own loss"


def test_a_view_without_a_finite_loss_skips_the_step_of_its_network_and_of_no_other():
    network, team = two_views(5.0)
    other = nn.Linear(4, 1)
    other.register_forward_pre_hook(lambda _, inputs: (inputs[0].nan_to_num(),))
    before, apart = weights_of([network, other])
    optimizers = [*team.optimizers, torch.optim.SGD(other.parameters(), lr=LR)]
    team = Cohort(Regression(), [*team.peers, other], optimizers, Rules(mechanism_named("ml")))
    b = batch([[math.nan] * 5, [0.0] * 5, [0.0] * 5], size=4)
    b["x"][:, 0] = math.nan
    report = team.step(b, UNGATED, 0.3)
    assert report.skipped.tolist() == [True, True, False]
    assert report.loss.isfinite().tolist() == [False, True, True]
    assert torch.equal(network.weight, before)
    assert other.weight.isfinite().all() and not torch.equal(other.weight, apart)


def test_views_cannot_alternate():
    _, team = two_views(5.0)
    with pytest.raises(SepmlError, match="'alternating' needs a network of its own for each peer"):
        Cohort(Regression(), team.peers, team.optimizers, replace(team.rules, updates="alternating"))


# Identical peers, and one alone.


class Classes:
    """Two-layer networks with logits, cross entropy and Kullback-Leibler divergence, all of PyTorch."""

    loss_name, score_name = "cross_entropy", "correct"

    def predict(self, peer, batch):
        return peer(batch["x"])

    def supervised_loss(self, prediction, batch):
        return functional.cross_entropy(prediction, batch["label"], reduction="none")

    def select(self, batch, examples):
        return {name: values[examples] for name, values in batch.items()}

    def mimic_loss(self, student, teacher, batch):
        return functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)

    def average(self, predictions, shares, batch):
        return torch.where(shares[..., None] > 0, shares[..., None] * predictions.softmax(2), 0).sum(0).log()

    def confidence(self, prediction, batch):
        return -self.supervised_loss(prediction, batch)


def classifier(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def labelled(seed: int, n: int = 6) -> dict:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(5, (n,), generator=generator)}


def trained_by_hand(steps: int) -> nn.Module:
    """With PyTorch alone."""
    network = classifier(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)
    for seed in range(steps):
        b = labelled(seed)
        optimizer.zero_grad()
        functional.cross_entropy(network(b["x"]), b["label"], reduction="none").mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.2)
        optimizer.step()
    return network


def classes_cohort(peers: list[nn.Module], rules: Rules) -> Cohort:
    optimizers = [torch.optim.SGD(peer.parameters(), lr=LR, momentum=0.9) for peer in peers]
    return Cohort(Classes(), peers, optimizers, rules, clip_norm=0.2)


@pytest.mark.parametrize("teacher", ["each", "mean"])
def test_identical_classifiers_have_nothing_to_teach(teacher):
    peers = [classifier(0) for _ in range(3)]
    team = classes_cohort(peers, Rules(mechanism_named("ml"), teacher=teacher))
    for seed in range(20):
        report = team.step(labelled(seed), UNGATED, 50.0)
    for peer in peers:
        for got, expected in zip(peer.parameters(), trained_by_hand(20).parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    assert report.mimic.abs().max() < 1e-12
    # The same test with others in their place must see a difference.
    others = [classifier(0), classifier(1), classifier(2)]
    classes_cohort(others, Rules(mechanism_named("ml"), teacher=teacher)).step(labelled(0), UNGATED, 50.0)
    assert (others[0][0].weight - trained_by_hand(1)[0].weight).abs().max() > 1e-4


@pytest.mark.parametrize("mechanism", ["solo", "ml", "sml"])
@pytest.mark.parametrize("rules", [{}, {"teacher": "mean"}, {"updates": "alternating"}])
def test_one_peer_is_plain_training_bit_for_bit(mechanism, rules):
    peers = [classifier(0)]
    team = classes_cohort(peers, Rules(mechanism_named(mechanism), **rules))
    for seed in range(20):
        team.step(labelled(seed), UNGATED, 50.0)
    for got, expected in zip(peers[0].parameters(), trained_by_hand(20).parameters(), strict=True):
        assert torch.equal(got, expected)


# The mean of separated signals.


def estimates(n_peers: int, n_examples: int, n_src: int = 3, noise: float = 0.3) -> Tensor:
    """Of peers that agree: `(n_peers, n_examples, n_src, 200)`."""
    generator = torch.Generator().manual_seed(3)
    sources = torch.randn(n_examples, n_src, 200, generator=generator)
    return sources + noise * torch.randn(n_peers, *sources.shape, generator=generator)


def mixed_from(est: Tensor) -> Batch:
    """The batch `(B, n_src, 200)` whose sources are these."""
    return Batch(est.sum(1), est, tuple(map(str, range(len(est)))))


def test_the_mean_of_estimates_does_not_depend_on_the_order_of_their_sources():
    aligned = estimates(2, 6)
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    mixed = aligned.clone()
    mixed[1] = aligned[1].gather(1, orders[:, :, None].expand(-1, -1, 200))
    share = torch.tensor([0.7, 0.6, 1.0, 0.7, 0.9, 0.55])
    shares = torch.stack([share, 1 - share])
    mean = share[:, None, None] * aligned[0] + (1 - share)[:, None, None] * aligned[1]
    task = SeparationTask()
    b = mixed_from(aligned[0])
    torch.testing.assert_close(task.average(aligned, shares, b), mean)
    torch.testing.assert_close(task.average(mixed, shares, b), mean)
    # With the other one first, the mean is in the other one's order.
    swapped = task.average(mixed.flip(0), shares.flip(0), b)
    same_up_to_order = [
        any(torch.allclose(swapped[b][order], mean[b], atol=1e-6) for order in orders) for b in range(len(mean))
    ]
    assert all(same_up_to_order)
    # In the order of the references already, nothing may be matched again.
    by_reference = SeparationTask("reference").average(mixed, shares, b)
    torch.testing.assert_close(by_reference, (shares[..., None, None] * mixed).sum(0))


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_the_estimates_of_a_peer_without_a_share_may_be_nan(align):
    aligned = estimates(3, 2)
    shares = torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.5, 1.0]])
    expected = torch.stack([(aligned[0, 0] + aligned[2, 0]) / 2, aligned[2, 1]])
    b = mixed_from(aligned[2])
    aligned[1] = math.nan
    aligned[0, 1] = math.nan
    torch.testing.assert_close(SeparationTask(align).average(aligned, shares, b), expected)


@pytest.mark.parametrize("absent", [math.nan, 0.0])
def test_the_teachers_of_an_example_are_matched_with_each_other_not_with_one_that_does_not_teach_on_it(absent):
    """Peer 1 teaches on most examples, but not on the last one, where it is no guide to the order of sources."""
    aligned = estimates(3, 3, n_src=2)
    shares = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    expected = (aligned[1, 2] + aligned[2, 2]) / 2
    aligned[0, 2] = absent
    aligned[2] = aligned[2].flip(1)
    mean = SeparationTask().average(aligned, shares, mixed_from(aligned[1]))[2]
    assert min((mean - expected).abs().max(), (mean.flip(0) - expected).abs().max()) < 1e-6


class Filters(nn.Module):
    """The smallest separator: a filter for each source."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.filters = nn.Conv1d(1, 2, 9, padding=4)

    def forward(self, mixture: Tensor) -> Tensor:
        return self.filters(mixture[:, None])


def separated(n_peers: int, align: str, teacher: str) -> tuple[list[nn.Module], list[StepReport]]:
    generator = torch.Generator().manual_seed(1)
    sources = torch.randn(4, 2, 300, generator=generator)
    b = Batch(sources.sum(1), sources, tuple("abcd"))
    peers = [Filters(seed) for seed in range(n_peers)]
    optimizers = [torch.optim.Adam(peer.parameters(), lr=0.01) for peer in peers]
    team = Cohort(SeparationTask(align), peers, optimizers, Rules(mechanism_named("sml"), teacher=teacher))
    return peers, [team.step(b, threshold=-8.0, weight=0.1) for _ in range(5)]


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_separators_learn_from_the_mean_of_the_others(align):
    each, reports = separated(2, align, "each")
    mean, _ = separated(2, align, "mean")
    gates = torch.stack([report.gate_open for report in reports])
    assert gates.max() > 0, "the peers teach"
    for a, b in zip(each, mean, strict=True):
        torch.testing.assert_close(a.filters.weight, b.filters.weight)
    three, reports = separated(3, align, "mean")
    assert not torch.stack([report.skipped for report in reports]).any()
    assert reports[-1].mimic.isfinite().all() and (reports[-1].loss < reports[0].loss).all()
    other, _ = separated(3, align, "each")
    assert not torch.equal(three[0].filters.weight, other[0].filters.weight)
