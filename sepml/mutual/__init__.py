"""The mutual-learning core: peers, batches and `(K, B)` numbers; nothing of audio or images."""

from sepml.mutual.cohort import Cohort, StepReport
from sepml.mutual.mechanisms import UNGATED, Mechanism, MechanismName, Rules, exchange, mechanism_named
from sepml.mutual.schedule import Schedule, epochs_since_best
from sepml.mutual.task import Task

__all__ = [
    "UNGATED",
    "Cohort",
    "Mechanism",
    "MechanismName",
    "Rules",
    "Schedule",
    "StepReport",
    "Task",
    "epochs_since_best",
    "exchange",
    "mechanism_named",
]
