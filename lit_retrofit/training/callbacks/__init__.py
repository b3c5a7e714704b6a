"""What happens around the steps, one callback per file."""

from lit_retrofit.training.callbacks.averaging import AveragedWeights
from lit_retrofit.training.callbacks.background_remine import BackgroundRemine
from lit_retrofit.training.callbacks.card import TrainingCard
from lit_retrofit.training.callbacks.embeddings import EmbeddingWriter
from lit_retrofit.training.callbacks.hardest import HardestNegatives
from lit_retrofit.training.callbacks.interruption import Interruption
from lit_retrofit.training.callbacks.loss_guard import LossGuard
from lit_retrofit.training.callbacks.parameter_count import ParameterCount
from lit_retrofit.training.callbacks.remine import Remine
from lit_retrofit.training.callbacks.step_monitor import StepMonitor
from lit_retrofit.training.callbacks.step_seeds import StepSeeds
from lit_retrofit.training.callbacks.validation import MONITOR, RetrievalValidation
from lit_retrofit.training.callbacks.wandb_outcome import WandbOutcome
from lit_retrofit.training.callbacks.whole_steps import WholeStepCheckpoint

__all__ = [
    "MONITOR",
    "AveragedWeights",
    "BackgroundRemine",
    "EmbeddingWriter",
    "HardestNegatives",
    "Interruption",
    "LossGuard",
    "ParameterCount",
    "Remine",
    "RetrievalValidation",
    "StepMonitor",
    "StepSeeds",
    "TrainingCard",
    "WandbOutcome",
    "WholeStepCheckpoint",
]
