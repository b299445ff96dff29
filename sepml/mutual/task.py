"""What a training step needs from outside: the task that peers learn together, and the device machinery."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sepml.mutual.records import map_tensors

Prediction = Any
"""A tensor, or a record of tensors, see `sepml.mutual.records`; the first axis of the first tensor is the example."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Task(Protocol):
    """A supervised task with a way to imitate a peer and to say how sure a peer is.

    Losses and confidences are per example, `(B,)`: a gate decides example by example, and reductions happen in one place
    (`Cohort.step`). Where U units of an example, such as its sources, are gated by themselves, all of them are `(U, B)`.
    A batch is opaque here. A prediction is a tensor whose first axis is the example (separated signals `(B, n_src, T)`, logits
    `(B, classes)`), or a record of such tensors, see `sepml.mutual.records`; a record may also hold tensors that are no
    example's, such as a network's parameters, where `of_examples` and `as_teacher` are the task's own.

    Attributes:
        loss_name: what `supervised_loss` is, for tables: `neg_si_snr`.
        score_name: what `score` is: `si_snri`.
    """

    loss_name: str
    score_name: str

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The peers that a network stands for: itself, or views of it, which share its weights and its optimiser's step."""
        ...

    def select(self, batch: Any, examples: Tensor) -> Any:
        """The part of a batch that holds the examples at the indices `(E,)`."""
        ...

    def of_examples(self, prediction: Prediction, examples: Tensor) -> Prediction:
        """The prediction for the examples at the indices `(E,)`."""
        ...

    def as_teacher(self, prediction: Prediction) -> Prediction:
        """A prediction as others learn from it: without its graph, unless a student's loss also moves its teacher.

        That is only for peers that share an optimiser, as views of one network do.
        """
        ...

    def names(self, batch: Any) -> Sequence[str]:
        """What a user knows the B examples of a batch by, such as the ids of a manifest; empty where there are no names."""
        ...

    def referenced(self, batch: Any) -> Tensor | None:
        """How far the references of each example count, `(B,)`: 0 where it has none; None is 1 for all.

        Examples without references are learnt from peers alone. The mean over all B is taken: B / R where R of them have
        references, and 0 elsewhere, lets the mean over those R count in full.
        """
        ...

    def predict(self, peer: nn.Module, batch: Any) -> Prediction:
        """Run one peer on the batch once."""
        ...

    def supervised_loss(self, prediction: Prediction, batch: Any) -> Tensor:
        """How far the prediction is from the references: `(B,)` or `(U, B)`, smaller is better."""
        ...

    def mimic_loss(self, student: Prediction, teacher: Prediction, batch: Any) -> Tensor:
        """How far a student is from a teacher, see `as_teacher`, on a batch: `(B,)` or `(U, B)`, smaller is closer."""
        ...

    def average(self, predictions: Prediction, shares: Tensor, batch: Any) -> Prediction:
        """The prediction of several teachers together on a batch.

        Args:
            predictions: `(J, B, ...)`. shares: `(J, U, B)`, which add up to 1, or to 0 in a unit that nobody teaches; what a
                share of 0 stands at may be nan.

        Returns:
            a prediction `(B, ...)`.
        """
        ...

    def confidence(
        self, predictions: Sequence[Prediction], batch: Any, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """How good a teacher each of K predictions is: `(K, B)` or `(K, U, B)`, bigger is surer, in the unit of the threshold.

        It may take the references, and where there are none, how far a prediction agrees with the others. nan never teaches.

        Args:
            losses: the predictions' `supervised_loss`, if it is known for all examples: most of the work may be done in it.
        """
        ...

    def score(self, prediction: Prediction, batch: Any) -> Tensor:
        """What a validated peer is judged by: `(B,)`, bigger is better."""
        ...


class PlainPredictions:
    """Predictions as most tasks have them: the first axis of all tensors is the example, and teachers take no gradient.

    A base class for tasks.
    """

    def of_examples(self, prediction: Prediction, examples: Tensor) -> Prediction:
        """The prediction for the examples at the indices `(E,)`."""
        return map_tensors(lambda tensor: tensor[examples], prediction)

    def as_teacher(self, prediction: Prediction) -> Prediction:
        """The prediction without its graph."""
        return map_tensors(Tensor.detach, prediction)


class UnlabelledTask(Task, Protocol):
    """A task in which predictions of several teachers can become the references of new examples."""

    def agreement(self, predictions: Sequence[Prediction], batch: Any) -> Tensor:
        """How far each two of K predictions agree: `(K, K, B)` or `(K, K, U, B)`, in the unit of the confidence."""
        ...

    def true_confidence(self, predictions: Sequence[Prediction], batch: Any) -> Tensor:
        """The confidence by references that only measurements may use: `(K, B)` or `(K, U, B)`; nan where there are none."""
        ...

    def complete(self, batch: Any, predictions: Sequence[Prediction], trust: Tensor, generator: Generator) -> Any:
        """A batch whose examples without references give way to new ones, whose references are made of predictions.

        Args:
            predictions: of K teachers for the E examples that have none.
            trust: `(U, E)`, from 0 to 1: how far the references that are made of an example count.
            generator: of random numbers, on the CPU.

        Returns:
            the batch as it was where nothing can be made.
        """
        ...


class Engine(Protocol):
    """The device machinery of a step."""

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulate gradients."""
        ...

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Combine a value over the processes that learn from other data."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """The columns `(K, N)` of all processes that learn from other data, one after the other; those with fewer have nan."""
        ...

    def mine(self, count: int) -> list[int]:
        """Which of so many peers, counted from 0, this process computes; others may compute the rest."""
        ...

    def exchange(self, values: dict[int, Item]) -> list[Item]:
        """The values of all peers, from those of the peers that this process computes.

        Args:
            values: by the peer's index: tensors, which have no graph, or records with tensors in them.
        """
        ...

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results of a function for items that have nothing in common, one after the other or at the same time."""
        ...


class LocalEngine:
    """One process, one device, full precision."""

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulate gradients."""
        tensor.backward()

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Return the value: there is one process only."""
        return data

    def gather(self, values: Tensor) -> Tensor:
        """Return the values: there is one process only."""
        return values

    def mine(self, count: int) -> list[int]:
        """All peers."""
        return list(range(count))

    def exchange(self, values: dict[int, Item]) -> list[Item]:
        """The values in the order of the peers."""
        return [values[k] for k in sorted(values)]

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results, one after the other."""
        return [function(item) for item in items]


@contextmanager
def statistics_kept(peer: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms during a second pass over a batch."""
    norms = [module for module in peer.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
