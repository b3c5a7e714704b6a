"""The training objective: weighted terms over one record of a step's embeddings."""

from __future__ import annotations

from lit_retrofit.training.objective.objective import Objective, ObjectiveOptions, ObjectiveOutput
from lit_retrofit.training.objective.step import StepEmbeddings

__all__ = ["Objective", "ObjectiveOptions", "ObjectiveOutput", "StepEmbeddings"]
