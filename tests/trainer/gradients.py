"""Gradients of one batch with given scales on the two branches."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction


def gradients_with(make, visual: float, semantic: float) -> dict[str, torch.Tensor]:
    *_, model = make("CIERec", reg_weight=0.0, privileged_dropout=0.0)
    model.train()
    model.gradient_scales = {"visual": visual, "semantic": semantic}
    generator = torch.Generator().manual_seed(0)
    columns = {
        "user_id": torch.randint(1, model.n_users, (40,), generator=generator),
        "item_id": torch.randint(1, model.n_items, (40,), generator=generator),
        "neg_item_id": torch.randint(1, model.n_items, (40,), generator=generator),
    }
    model.calculate_loss(Interaction(columns)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
