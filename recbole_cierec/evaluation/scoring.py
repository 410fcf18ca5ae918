"""Scores of candidate lists, by the cheapest exact method of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.evaluation.collector import Segment, batch_candidates
from recbole_cierec.evaluation.plan import EvaluationPlan

PAIRS = 65536  # pairs at a time, for models that only have predict


def candidate_batch(
    trainer: Any, plan: EvaluationPlan, interaction: Any, rows: Tensor
) -> tuple[Tensor, Tensor, list[Segment]]:
    """Scores of a batch of users for their candidates.

    Args:
        trainer: RecBole's trainer, for its model and device.
        plan: A plan with candidate lists.
        interaction: The users, as RecBole passes them to the model.
        rows: Their rows [B] in the plan.

    Returns:
        (scores [B, W], ``rows``, the columns of each view and repeat); scores of padding are -inf.
    """
    table, segments = batch_candidates(plan, rows.numpy())
    items = torch.from_numpy(table).to(trainer.device)
    interaction = interaction.to(trainer.device)
    model = trainer.model
    if hasattr(model, "candidate_scores"):
        scores = model.candidate_scores(interaction, items)
    else:
        scores = _of_any_model(trainer, interaction, items)
    return scores.masked_fill_(items == 0, -np.inf), rows, segments


def _of_any_model(trainer: Any, interaction: Any, items: Tensor) -> Tensor:
    """Selected from full scores, a few users at a time; for models without them, by predict."""
    step = max(1, trainer.config["eval_batch_size"] // trainer.tot_item_num)
    try:
        parts = []
        for rows in torch.arange(len(items)).split(step):
            scores = trainer.model.full_sort_predict(interaction[rows])
            chosen = items[rows.to(items.device)]
            parts.append(scores.view(-1, trainer.tot_item_num).gather(1, chosen))
        return torch.cat(parts)
    except NotImplementedError:
        rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        parts = [
            _pairs(trainer, interaction, r, i)
            for r, i in zip(rows.split(PAIRS), items.reshape(-1).split(PAIRS), strict=True)
        ]
        return torch.cat(parts).view(items.shape)


def _pairs(trainer: Any, interaction: Any, rows: Tensor, items: Tensor) -> Tensor:
    pairs = interaction[rows]
    pairs.update(trainer.item_tensor[items])  # adds the item columns that the model reads
    return trainer.model.predict(pairs).view(-1)
