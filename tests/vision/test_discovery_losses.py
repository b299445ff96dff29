"""Category discovery: each term of the loss in closed form, queues and parts by NumPy, and a whole step by hand."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

pytest.importorskip("torchvision")
pytest.importorskip("timm")
from sklearn.metrics import log_loss

from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
from sepml.vision.discovery_evaluate import aligned, matched
from sepml.vision.discovery_network import BranchOutput, Discoverer, DiscovererConfig, PartDictionary, VectorQueue
from sepml.vision.discovery_task import (
    DiscoveryBatch,
    DiscoverySettings,
    DiscoveryTask,
    collate_views,
    pair_loss,
    same_by_ranks,
)

LABELS = [0, -1, 2, -1, -1, 1, -1]
UNLABELLED = [n for n, label in enumerate(LABELS) if label < 0]
LABELLED = [n for n, label in enumerate(LABELS) if label >= 0]


def batch(size: int = 16, epoch: int = 2) -> DiscoveryBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(LABELS), 2, 3, size, size, generator=generator)
    return collate_views([(image, label, epoch) for image, label in zip(images, LABELS, strict=True)])


def output(seed: int, classes: tuple[int, int] = (3, 4)) -> BranchOutput:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, classes[0]), (2, classes[1]), (1 + 9,), (6,)]
    return BranchOutput(*(torch.randn(len(LABELS), *shape, generator=generator) for shape in shapes))


def test_shares_let_a_mean_over_the_batch_be_one_over_each_kind():
    data, values = batch(), torch.arange(7.0)
    wanted = values[LABELLED].mean() + values[UNLABELLED].mean()
    torch.testing.assert_close((data.shares * values).mean(), wanted)
    assert collate_views([(torch.zeros(2, 1, 4, 4), 1, 0)] * 3).shares.tolist() == [1, 1, 1]


def test_pseudo_labels_compare_sets_not_orders():
    ranked = torch.randn(40, 5, generator=torch.Generator().manual_seed(3))
    sets = [set(np.argsort(row)[-3:].tolist()) for row in ranked.numpy()]
    wanted = [[one == other for other in sets] for one in sets]
    assert same_by_ranks(ranked, 3).tolist() == wanted and 40 < np.sum(wanted) < 1600
    assert same_by_ranks(ranked, 64).all(), "all of them are the same set"


def test_the_loss_of_pairs_is_the_log_loss_of_two_views():
    novel = output(0).novel
    same = same_by_ranks(torch.randn(7, 3, generator=torch.Generator().manual_seed(5)), 1)
    one, other = softmax(novel.numpy(), 2).swapaxes(0, 1)
    loss = pair_loss(novel, same)
    for i in range(7):
        alike = [float(one[i] @ other[j]) for j in range(7)]
        assert float(loss[i]) == pytest.approx(log_loss(same[i].int().numpy(), alike, labels=[0, 1]), rel=1e-5)


@pytest.mark.parametrize("lead", [10.0, 16.0, 17.0, 18.0, 20.0, 30.0])
def test_sure_pairs_with_the_wrong_pseudo_label_have_no_steep_slope(lead):
    logits = torch.zeros(2, 2, 5)
    logits[:, :, 0] = lead
    logits.requires_grad_()
    pair_loss(logits, torch.eye(2, dtype=torch.bool)).sum().backward()
    # By hand: with p = softmax, the slope of -log(1 - p . p') is at most 1/4 in each of these logits.
    assert logits.grad.abs().max() < 0.26 and (logits.grad[:, :, 0] > 0.2).all() == (lead < 17)


@pytest.mark.parametrize(("epoch", "rise"), [(0, math.exp(-5)), (2, math.exp(-5 * (1 - 2 / 8) ** 2)), (8, 1.0), (11, 1.0)])
def test_what_a_branch_learns_by_itself(epoch, rise):
    settings = DiscoverySettings([3, 4, 5, 6], cross_entropy=1.0, pairs=1.0, consistency=50.0, ramp=8, top=2)
    found, data = output(2), batch(epoch=epoch)
    known, novel = softmax(found.labelled.numpy(), 2), softmax(found.novel.numpy(), 2)
    parts = {
        "cross_entropy": log_loss([LABELS[n] for n in LABELLED], known[LABELLED, 0], labels=[0, 1, 2]),
        "consistency": rise * (((known[:, 0] - known[:, 1]) ** 2).mean() + ((novel[:, 0] - novel[:, 1]) ** 2).mean()),
    }
    top = [set(np.argsort(found.ranked[n].numpy())[-2:].tolist()) for n in UNLABELLED]
    pairs = itertools.product(enumerate(UNLABELLED), repeat=2)
    alike = [(top[a] == top[b], novel[i, 0] @ novel[j, 1]) for (a, i), (b, j) in pairs]
    parts["pairs"] = -np.mean([math.log(p if same else 1 - p) for same, p in alike])
    weights = {"cross_entropy": 1.0, "pairs": 1.0, "consistency": 50.0}
    whole = float(DiscoveryTask(settings).supervised_loss(found, data).mean())
    assert whole == pytest.approx(sum(weights[name] * value for name, value in parts.items()), rel=1e-5)
    for name, value in parts.items():
        alone = DiscoverySettings([3, 4, 5, 6], ramp=8, top=2, **{other: 0.0 for other in parts} | {name: 3.0})
        loss = DiscoveryTask(alone).supervised_loss(found, data)
        assert float(loss.mean()) == pytest.approx(3 * value, rel=1e-5)
        quiet = {"cross_entropy": UNLABELLED, "pairs": LABELLED, "consistency": []}[name]
        assert (loss[quiet] == 0).all() and (loss != 0).any()


@pytest.mark.parametrize("imitate", ["similarities", "posteriors"])
def test_both_branches_together_have_the_symmetric_divergence_and_both_are_moved(imitate):
    task = DiscoveryTask(DiscoverySettings([3, 4, 5, 6], imitate=imitate, temperature=0.2))
    one, other = (BranchOutput(*(tensor.requires_grad_() for tensor in output(seed))) for seed in (7, 8))
    data = batch()
    losses = [task.mimic_loss(a, task.as_teacher(b), data) for a, b in ((one, other), (other, one))]
    raw = [each.similarities / 0.2 if imitate == "similarities" else each.novel[:, 0] for each in (one, other)]
    p, q = (softmax(each.detach().numpy().astype(float), 1)[UNLABELLED] for each in raw)
    wanted = 0.5 * np.mean(rel_entr(p, q).sum(1) + rel_entr(q, p).sum(1))
    assert sum(loss.mean().item() for loss in losses) == pytest.approx(wanted, rel=1e-5)
    assert all((loss[LABELLED] == 0).all() for loss in losses)
    # Of a single one of them, the gradient is in the student and in the teacher.
    losses[0].mean().backward()
    name = "similarities" if imitate == "similarities" else "novel"
    for each in (one, other):
        assert getattr(each, name).grad[UNLABELLED].abs().sum() > 0.01 and not getattr(each, name).grad[LABELLED].any()


def test_a_queue_forgets_the_oldest():
    queue = VectorQueue(5, 2)
    assert queue.rows.norm(dim=1).tolist() == pytest.approx([1.0] * 5)
    vectors = torch.arange(34.0).reshape(17, 2)
    kept = queue.rows.tolist()
    for start, end in ((0, 3), (3, 7), (7, 7), (7, 16), (16, 17)):
        queue.push(vectors[start:end])
        kept = (kept + vectors[start:end].tolist())[-5:]
        assert sorted(queue.rows.tolist()) == sorted(kept) and int(queue.count) == end


def test_parts_by_numpy():
    torch.manual_seed(4)
    parts = PartDictionary(6, 3, 15.0)
    maps = torch.randn(2, 3, 5, 4)
    inner = maps.numpy()[:, :, 1:4, 1:3].reshape(2, 3, 6).swapaxes(1, 2)
    scale = None
    for step in range(5):
        words = parts.queue.rows.numpy().copy()
        distances = ((inner[:, :, None] - words[None, None]) ** 2).sum(3)
        nearest = distances.min(2).mean()
        # Six descriptors from two images a step: full after three.
        scale = nearest if step <= 2 else 0.99 * scale + 0.01 * nearest
        found = parts(maps)
        np.testing.assert_allclose(found.numpy(), softmax(-15.0 * distances / scale, 2).mean(1), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.numpy().sum(1), 1.0, rtol=1e-5)
        new = parts.queue.rows.numpy()[[2 * step % 6, (2 * step + 1) % 6]]
        assert all(any(np.allclose(new[b], location) for location in inner[b]) for b in (0, 1))
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    parts.eval()(maps)
    assert all(torch.equal(value, before[name]) for name, value in parts.state_dict().items())


CONFIG = DiscovererConfig("small", 3, 4, size=(16, 16), bank=9, parts=8)


def by_hand(network: Discoverer, task: DiscoveryTask, data: DiscoveryBatch) -> torch.Tensor:
    """L_CE + L_BCE + w L_MSE of both branches and L_sKLD, with both in one graph."""
    shared = network.trunk(data.images.flatten(0, 1))
    total, logs = torch.zeros(()), []
    for branch in network.branches.values():
        maps = branch.stage(shared)
        features = maps.mean((2, 3)).unflatten(0, (7, 2))
        own = branch.labelled(features), branch.novel(features)
        ranked = features[:, 0].detach() if branch.parts is None else branch.parts(maps.unflatten(0, (7, 2))[:, 0].detach())
        total = total + task.supervised_loss(BranchOutput(*own, features[:, 0], ranked), data).mean()
        unit = features / features.norm(dim=2, keepdim=True)
        sims = torch.cat([(unit[:, 0] * unit[:, 1]).sum(1, keepdim=True), unit[:, 0] @ branch.bank.rows.T], 1)
        logs.append((sims[UNLABELLED] / 0.07).log_softmax(1))
    p, q = logs
    return total + 0.5 * ((p.exp() * (p - q)).sum(1).mean() + (q.exp() * (q - p)).sum(1).mean())


def test_a_step_is_the_gradient_of_the_whole_loss_and_fills_the_memory():
    torch.manual_seed(0)
    network = Discoverer(CONFIG).train()
    twin, data = copy.deepcopy(network), batch()
    task = DiscoveryTask(DiscoverySettings([3, 4, 5, 6], top=2, ramp=8))
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    cohort = Cohort(task, task.views(network), [optimizer] * 2, Rules(mechanism_named("ml")), math.inf)
    torch.manual_seed(5)
    report = cohort.step(data, UNGATED, 1.0)
    torch.manual_seed(5)
    loss = by_hand(twin, task, data)
    loss.backward()
    assert float(report.loss.sum()) == pytest.approx(float(loss), rel=1e-5)
    for (name, now), old in zip(network.named_parameters(), twin.parameters(), strict=True):
        scale = float(old.grad.abs().max())
        assert scale > 1e-5, name
        torch.testing.assert_close(old.detach() - now.detach(), old.grad, rtol=0, atol=1e-4 * scale + 1e-7)
    assert network.trunk[1].num_batches_tracked == 1, "the trunk runs once for both branches"
    # The banks take the features that the network had before its step, of the second views of images without labels.
    with torch.no_grad():
        shared = twin.trunk(data.images.flatten(0, 1))
        for name, branch in network.branches.items():
            features = twin.branches[name].stage(shared).mean((2, 3)).unflatten(0, (7, 2))[UNLABELLED, 1]
            rows = features / features.norm(dim=1, keepdim=True)
            torch.testing.assert_close(branch.bank.rows[: len(UNLABELLED)], rows, rtol=1e-4, atol=1e-6)
            assert torch.equal(branch.bank.rows[len(UNLABELLED) :], twin.branches[name].bank.rows[len(UNLABELLED) :])
            assert int(branch.bank.count) == len(UNLABELLED)
    assert network._held is None


def test_one_branch_is_alone():
    network = Discoverer(DiscovererConfig("resnet32", 3, 4, size=(16, 16), branches=("local",), bank=9, parts=8)).train()
    task = DiscoveryTask(DiscoverySettings([3, 4, 5, 6]))
    (view,) = task.views(network)
    assert [*network.branches] == ["local"]
    first = task.predict(view, batch())
    assert first.labelled.shape == (7, 2, 3) and first.similarities.shape == (7, 10) and first.ranked.shape == (7, 8)
    assert int(network.branches["local"].bank.count) == len(UNLABELLED)


def test_the_one_teacher_of_an_example_is_the_average():
    task, predictions = DiscoveryTask(DiscoverySettings([3, 4])), [output(1), output(2)]
    stacked = BranchOutput(*(torch.stack(each) for each in zip(*predictions, strict=True)))
    shares = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]])[:, None]
    mean = task.average(stacked, shares, batch())
    for n, of in enumerate(shares[:, 0].argmax(0).tolist()):
        assert all(torch.equal(a[n], b[n]) for a, b in zip(mean, predictions[of], strict=True))
    sure = task.confidence(predictions, batch())
    for n, label in enumerate(LABELS):
        logits = predictions[1].novel[n, 0] if label < 0 else predictions[1].labelled[n, 0]
        assert float(sure[1, n]) == pytest.approx(softmax(logits.numpy()).max(), rel=1e-5)


def test_clusters_are_matched_as_well_as_any_permutation_does():
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    best = max(np.mean(np.array(names)[clusters] == labels) for names in itertools.permutations(range(4)))
    assert matched(clusters, labels).mean() == pytest.approx(100 * best) and set(matched(clusters, labels)) == {0.0, 100.0}
    assert matched(np.array([3, 3, 1]), np.array([0, 0, 2])).tolist() == [100.0] * 3, "clusters have no numbers of their own"
    assert matched(np.zeros(4, dtype=int), np.array([0, 1, 2, 2])).tolist() == [0.0, 0.0, 100.0, 100.0]


def test_branches_are_aligned_without_labels():
    first = np.random.default_rng(1).dirichlet([0.2] * 4, 30)
    one, other = aligned([first, first[:, [2, 0, 3, 1]]])
    assert np.array_equal(one, first) and np.array_equal(other, first)
