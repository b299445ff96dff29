"""Mean-field Gaussian layers, their divergences, and the losses of Bayesian peers, against torch.distributions and by hand."""

import copy
import math

import pytest
import torch
from classifiers import built, pictures
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from sepml.mutual import Cohort, Rules, mechanism_named
from sepml.training.peer_strategy import draws_numbers
from sepml.vision.bayesian_task import (
    MOST_DISTANCE,
    SIMILARITY_TEMPERATURE,
    BayesianPeer,
    BayesianTask,
    PeerPrediction,
    fused_features,
    similarity_divergence,
)
from sepml.vision.gaussian import (
    GaussianConv2d,
    GaussianLinear,
    drawn_network,
    gaussian_layers,
    kl_to_prior,
    make_gaussian,
    posterior,
    wasserstein2,
)
from sepml.vision.networks import NetworkConfig
from sepml.vision.task import ImageBatch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(seed: int, count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(2, count, generator=generator(seed), dtype=torch.float64)
    return drawn[0], drawn[1].exp()


def gaussian_of(layer: nn.Module, sigma: float = 0.3) -> nn.Module:
    network = nn.Sequential(layer)
    make_gaussian(network, sigma)
    return network


def peer(name: str = "small", seed: int = 0, sigma: float | None = 0.05) -> BayesianPeer:
    config = NetworkConfig(name, 5, 1, (8, 8))
    made = BayesianPeer(config, built(config, seed).network)
    if sigma:
        make_gaussian(made, sigma)
    return made


def prediction(seed: int, count: int = 6, weights: int = 10) -> PeerPrediction:
    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=numbers, dtype=torch.float64)

    numbers = generator(seed)
    return PeerPrediction(drawn(count, 5), drawn(count, 7), drawn(weights), drawn(weights).exp())


def test_the_divergence_from_the_prior_is_that_of_torch():
    mu, sigma = gaussians(1)
    prior = Normal(torch.zeros_like(mu), torch.full_like(mu, 0.4))
    expected = kl_divergence(Independent(Normal(mu, sigma), 1), Independent(prior, 1))
    torch.testing.assert_close(kl_to_prior(mu, sigma, 0.4), expected)
    assert float(kl_to_prior(torch.zeros(3), torch.full((3,), 0.4), 0.4)) == pytest.approx(0, abs=1e-6)
    assert float(kl_to_prior(torch.empty(0), torch.empty(0), 0.4)) == 0, "of a peer without distributions"


def test_the_wasserstein_distance_is_the_cost_of_transport_by_quantiles():
    """In one dimension the best transport moves each quantile to the same quantile; of independent weights, costs add up."""
    (mu, sigma), (other_mu, other_sigma) = gaussians(1, 3), gaussians(2, 3)
    quantiles = (torch.arange(200_000, dtype=torch.float64) + 0.5)[:, None] / 200_000
    moved = Normal(mu, sigma).icdf(quantiles) - Normal(other_mu, other_sigma).icdf(quantiles)
    expected = moved.square().mean(0).sum()
    torch.testing.assert_close(wasserstein2((mu, sigma), (other_mu, other_sigma)), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), (1, 2, 5, 5)),
        (nn.Conv2d(2, 4, 3, groups=2, bias=False), (1, 2, 5, 5)),
        (nn.Linear(6, 3), (1, 6)),
    ],
)
def test_drawn_outputs_are_distributed_as_those_of_drawn_weights(layer, shape):
    torch.manual_seed(1)
    plain = copy.deepcopy(layer)
    network, x = gaussian_of(layer), torch.randn(shape)
    with torch.no_grad():
        drawn = network.train()(x.expand(20_000, *shape[1:]))
        numbers = generator()
        sampled = torch.cat([drawn_network(network, numbers)(x) for _ in range(1_500)])
        assert torch.equal(network.eval()(x), plain(x)), "evaluation computes with the means"
    # Within five standard errors of the mean; of the variance within 20 %, about five standard errors.
    error = 5 * sampled.std(0) / math.sqrt(len(sampled))
    assert ((drawn.mean(0) - sampled.mean(0)).abs() < error).all()
    assert ((drawn.var(0) / sampled.var(0) - 1).abs() < 0.2).all()


@pytest.mark.parametrize("sigma", [1e-6, 0.02, 1.0, 1000.0])
def test_standard_deviations_of_any_size_are_begun_with(sigma):
    torch.testing.assert_close(posterior(gaussian_of(nn.Linear(2, 1), sigma))[1], torch.full((3,), sigma), rtol=1e-5, atol=0)


def test_a_layer_begins_with_the_weights_of_the_plain_one_and_the_standard_deviation():
    plain = nn.Linear(4, 3)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    network = gaussian_of(plain, 0.07)
    assert type(network[0]) is GaussianLinear and draws_numbers(network)
    assert all(torch.equal(network[0].state_dict()[name], value) for name, value in before.items())
    mu, sigma = posterior(network)
    assert torch.equal(mu, torch.cat([before["weight"].flatten(), before["bias"]]))
    torch.testing.assert_close(sigma, torch.full((15,), 0.07))
    assert torch.equal(network.eval()(torch.ones(2, 4)), F.linear(torch.ones(2, 4), *before.values()))


def test_an_input_of_zeros_has_a_gradient():
    network = gaussian_of(nn.Conv2d(1, 1, 3, bias=False)).train()
    network(torch.zeros(1, 1, 4, 4)).sum().backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_drawn_networks_depend_on_the_generator_alone():
    made = peer()
    one, again, other = (drawn_network(made.network, generator(seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    moved = (one["0.weight"] - made.network[0].weight).detach()
    assert not torch.equal(one["0.weight"], other["0.weight"]) and 0.03 < float(moved.std()) < 0.07


@pytest.mark.parametrize(("name", "maps"), [("small", (16, 32, 64)), ("resnet20", (16, 32, 64)), ("resnet32", (16, 32, 64))])
def test_features_are_the_last_maps_of_each_size(name, maps):
    made = peer(name).eval()
    assert {type(layer) for layer in gaussian_layers(made)} == {GaussianConv2d, GaussianLinear}
    with torch.no_grad():
        found = made(pictures(3, 1, 8, 8))
        logits, features = fused_features(made.network, pictures(3, 1, 8, 8))
    assert torch.equal(found.logits, logits) and torch.equal(logits, made.classifier()(pictures(3, 1, 8, 8)))
    assert features.shape == (3, sum(maps))
    lengths = torch.stack([part.norm(dim=1) for part in features.split(maps, 1)])
    torch.testing.assert_close(lengths, torch.ones(3, 3))
    last = list(made.network.children())[:-3]
    pooled = nn.Sequential(*last)(pictures(3, 1, 8, 8)).mean((2, 3)).detach()
    torch.testing.assert_close(features[:, -64:], F.normalize(pooled, dim=1))


def test_the_divergence_of_similarities_is_that_by_hand():
    student, teacher = prediction(1).features, prediction(2).features

    def rows(features: torch.Tensor) -> list[torch.Tensor]:
        cosines = [[F.cosine_similarity(a, b, dim=0) for j, b in enumerate(features) if j != i] for i, a in enumerate(features)]
        return [torch.softmax(torch.stack(row) / SIMILARITY_TEMPERATURE, 0) for row in cosines]

    expected = [(q * (q / p).log()).sum() for p, q in zip(rows(student), rows(teacher), strict=True)]
    torch.testing.assert_close(similarity_divergence(student, teacher), torch.stack(expected))
    assert float(similarity_divergence(student, student).abs().max()) < 1e-12
    assert similarity_divergence(student[:2], teacher[:2]).tolist() == [0, 0]


def test_the_losses_are_those_by_hand():
    task = BayesianTask(40, 0.5, 0.1, parameter_diversity=0.3, feature_diversity=0.2, temperature=2.0)
    student, teacher, labels = prediction(1), prediction(2), torch.tensor([0, 1, 2, 3, 4, 0])
    batch = ImageBatch(torch.zeros(6, 1), labels)
    own = F.cross_entropy(student.logits, labels, reduction="none")
    prior = Normal(torch.zeros(10, dtype=torch.float64), 0.5)
    own = own + 0.1 / 40 * kl_divergence(Normal(student.mu, student.sigma), prior).sum()
    torch.testing.assert_close(task.supervised_loss(student, batch), own)
    p, q = (torch.softmax(each.logits / 2, 1) for each in (student, teacher))
    divergence = 4 * (q * (q / p).log()).sum(1)
    distance = ((student.mu - teacher.mu) ** 2 + (student.sigma - teacher.sigma) ** 2).sum() / (10 * 0.5**2)
    bonus = 0.3 * math.log1p(min(float(distance), MOST_DISTANCE))
    expected = divergence - bonus - 0.2 * similarity_divergence(student.features, teacher.features)
    torch.testing.assert_close(task.mimic_loss(student, teacher, batch), expected)
    assert task.score(student, batch).sum() == 100 * (student.logits.argmax(1) == labels).sum()


def test_distance_in_parameters_is_worth_no_more_beyond_the_bound():
    task = BayesianTask(40, 1.0, 0.0, parameter_diversity=1.0)
    teacher = prediction(1)
    for far, expected in ((1.0, math.log(2)), (3.0, math.log1p(MOST_DISTANCE))):
        moved = teacher._replace(mu=(teacher.mu + far).requires_grad_())
        loss = task.mimic_loss(moved, teacher).mean()
        assert float(-loss.detach()) == pytest.approx(expected)
        loss.backward()
        assert (moved.mu.grad == 0).all() == (far**2 > MOST_DISTANCE)


def test_the_mean_of_teachers_is_their_barycentre_and_parameters_stay_whole():
    task = BayesianTask(40, 1.0, 0.0)
    both = PeerPrediction(*(torch.stack(parts) for parts in zip(prediction(1), prediction(2), strict=True)))
    found = task.average(both, torch.full((2, 1, 6), 0.5, dtype=torch.float64))
    torch.testing.assert_close(found.logits.softmax(1), both.logits.softmax(2).mean(0))
    cost = [wasserstein2((found.mu + d, found.sigma), (both.mu[k], both.sigma[k])) for d in (0.0, 0.1, -0.1) for k in (0, 1)]
    assert cost[0] + cost[1] < min(cost[2] + cost[3], cost[4] + cost[5])
    part = task.of_examples(prediction(1), torch.tensor([4, 2]))
    assert torch.equal(part.logits, prediction(1).logits[[4, 2]]) and torch.equal(part.mu, prediction(1).mu)


def test_a_step_moves_the_peers_by_the_gradient_of_the_loss_by_hand():
    batch = ImageBatch(pictures(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0]))
    task = BayesianTask(40, 0.5, 0.1, parameter_diversity=0.3, feature_diversity=0.2)
    peers = [peer(seed=seed) for seed in (1, 2)]
    torch.manual_seed(5)
    found = [each(batch.images) for each in peers]
    moved = []
    for student, teacher, of in ((0, 1, peers[0]), (1, 0, peers[1])):
        fixed = PeerPrediction(*(part.detach() for part in found[teacher]))
        loss = task.supervised_loss(found[student], batch) + 0.7 * task.mimic_loss(found[student], fixed)
        gradients = torch.autograd.grad(loss.mean(), list(of.parameters()))
        moved += [value.detach() - 0.1 * gradient for value, gradient in zip(of.parameters(), gradients, strict=True)]
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in peers]
    torch.manual_seed(5)
    report = Cohort(task, peers, optimizers, Rules(mechanism_named("ml")), clip_norm=math.inf).step(batch, -math.inf, 0.7)
    assert not report.skipped.any()
    for value, expected in zip((v for each in peers for v in each.parameters()), moved, strict=True):
        torch.testing.assert_close(value.detach(), expected, rtol=1e-4, atol=1e-6)
