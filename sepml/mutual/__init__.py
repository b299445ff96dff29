"""The mutual-learning core: peers, batches and `(K, B)` numbers; nothing of audio or images."""

from sepml.mutual.cohort import Cohort, Rules, StepReport
from sepml.mutual.exchange import MECHANISMS, UNGATED, Mechanism, exchange, listens, supervised
from sepml.mutual.schedule import LearningRate, Threshold, epochs_since_best
from sepml.mutual.task import Task

__all__ = [
    "MECHANISMS",
    "UNGATED",
    "Cohort",
    "LearningRate",
    "Mechanism",
    "Rules",
    "StepReport",
    "Task",
    "Threshold",
    "epochs_since_best",
    "exchange",
    "listens",
    "supervised",
]
