"""What CIERec's semantic path learns on the demo data, whose pictures show what annotations name.

At the rates of the ids, the paper's single rate: they show what a warm-up is for.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbole_cierec.config.config import Config
from recbole_cierec.quick_start import prepare

EPOCHS = 12  # of nine batches


def mean_cosine(rows):
    """The mean cosine [] over pairs of different rows."""
    unit, n = F.normalize(rows), len(rows)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


@pytest.fixture
def trained(in_tmp):
    """Train with some keys; returns the model, and mean cosines of s_i after each epoch."""

    def train(**keys):
        keys |= {"content_learning_rate": 0.2, "encoder_learning_rate": 0.2}
        keys |= {"epochs": EPOCHS, "show_progress": False}
        job = prepare(Config("CIERec", "demo", None, keys, {}), saved=False)
        model, trainer, cosines = job.model, job.trainer, []
        one_epoch = trainer._train_epoch

        def watched(*args, **kwargs):
            result = one_epoch(*args, **kwargs)
            with torch.no_grad():
                s = model.eval().item_side(model.seen.nonzero().squeeze(1))["s"]
            cosines.append(mean_cosine(s))
            model.train()
            return result

        trainer._train_epoch = watched
        trainer.fit(job.loaders[0], saved=False)
        return model.eval(), cosines

    return train


def test_semantic_vectors_tell_items_apart_in_all_of_training(trained):
    _, cosines = trained()
    assert len(cosines) == EPOCHS
    assert max(cosines) < 0.7
    _, cosines = trained(warmup_steps=0)  # Adagrad's first steps make all s_i alike
    assert min(cosines[1:]) > 0.8


@torch.no_grad()
def surprise(model, items, by_picture=True):
    """Mean negative log-likelihood of the items' tokens, as CIERec's guidance defines it."""
    c = model.inference_gate(model.encoder(items)) * float(by_picture)
    counts = torch.bincount(model.tokens[model.seen > 0].flatten())[1:]
    log_share = (counts / counts.sum()).log()
    table = model.token_weights
    return float(model.semantic.guidance(c, model.tokens[items], table, log_share).mean())


def test_pictures_of_new_items_predict_annotations_that_were_never_shown(trained):
    model, _ = trained()
    new = ((model.seen == 0) & (model.tokens[:, 0] > 0)).nonzero().squeeze(1)
    assert len(new) > 50
    by_share = surprise(model, new, by_picture=False)
    assert surprise(model, new) < 0.6 * by_share
    model, _ = trained(guidance_weight=0.0)
    assert surprise(model, new) > by_share
