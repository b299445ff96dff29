"""The mutual-learning core: peers, batches and `(K, U, B)` numbers; nothing of audio or images."""

from sepml.mutual.cohort import Cohort
from sepml.mutual.gates import UNGATED, Gate
from sepml.mutual.mechanisms import Mechanism, MechanismName, Rules, exchange, mechanism_named
from sepml.mutual.schedule import Schedule, epochs_since_best
from sepml.mutual.step_report import StepReport
from sepml.mutual.task import PlainPredictions, Task, UnlabelledTask
from sepml.mutual.teachers import Teachers, TeachingFigures, TeachingRules

__all__ = [
    "UNGATED",
    "Cohort",
    "Gate",
    "Mechanism",
    "MechanismName",
    "PlainPredictions",
    "Rules",
    "Schedule",
    "StepReport",
    "Task",
    "Teachers",
    "TeachingFigures",
    "TeachingRules",
    "UnlabelledTask",
    "epochs_since_best",
    "exchange",
    "mechanism_named",
]
