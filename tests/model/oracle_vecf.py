"""VECF's equations as written: one region and one word at a time."""

from __future__ import annotations

import numpy as np
from oracle import Oracle, sigmoid
from oracle_hafr import softmax


class VecfOracle(Oracle):
    """``features`` are region maps [I, R, C]; ``merge`` and ``caption_weight`` are options."""

    def shares(self, u, i):
        w = self.w
        user = w["user_key.weight"] @ self.p(u)
        return softmax(
            [
                w["attention.weight"][0] @ np.maximum((w["region_key.weight"] @ f) * user, 0.0)
                for f in self.features[i]
            ]
        )

    def view(self, u, i):  # I_ui
        return sum(a * f for a, f in zip(self.shares(u, i), self.features[i], strict=True))

    def vector(self, u, i):  # q~_ui
        q, merge = self.q(i), self.o["merge"]
        image = np.zeros_like(q)
        if self.pictured[i]:
            image = self.w["projection.weight"] @ self.view(u, i)
        if merge == "add":
            return 0.5 * (q + image)
        if merge == "concat":
            return self.w["merge_map.weight"] @ np.concatenate([q, image])
        if not self.pictured[i]:
            return q
        return q * image if self.seen[i] else image

    def vecf(self, u, i, annotated=False):
        w, p, q = self.w, self.p(u), self.vector(u, i)
        if "scorer.output.weight" not in w:
            return p @ q
        x = w["scorer.user.weight"] @ p + w["scorer.item.weight"] @ q + w["scorer.user.bias"]
        x = sigmoid(x)
        for k in range(4):
            x = sigmoid(w[f"scorer.layers.{k}.weight"] @ x + w[f"scorer.layers.{k}.bias"])
        return w["scorer.output.weight"][0] @ x

    def lengths(self, u, i, annotated=False):
        p, q = self.p(u), self.vector(u, i)
        return p @ p, q @ q + (self.w["item_bias.weight"][i, 0] * self.seen[i]) ** 2

    def caption(self, u, i):
        """Sum over words of -log P(word)."""
        w = {k.removeprefix("caption."): v for k, v in self.w.items() if k.startswith("caption.")}
        both = np.concatenate([self.p(u), self.q(i)])
        image = self.view(u, i) if self.pictured[i] else np.zeros(self.features.shape[2])
        h = m = np.tanh(w["start.weight"] @ both)
        total, previous = 0.0, 0
        for token in self.tokens[i]:
            gamma = sigmoid(w["gate.weight"][0] @ h)
            z = gamma * (w["region_map.weight"] @ image)
            z = np.maximum(z + (1 - gamma) * (w["id_map.weight"] @ both) + w["bias"], 0.0)
            y = w["cell.weight_ih"] @ np.concatenate([w["words.weight"][previous], z])
            y = y + w["cell.bias_ih"] + w["cell.weight_hh"] @ h + w["cell.bias_hh"]
            enter, forget, new, out = np.split(y, 4)
            m = sigmoid(forget) * m + sigmoid(enter) * np.tanh(new)
            h = sigmoid(out) * np.tanh(m)
            logits = w["output.weight"] @ h + w["output.bias"]  # of the tokens 1, 2, ...
            total -= np.log(softmax(logits)[token - 1])
            previous = token
        return total

    def _captions(self, users, positive):
        texts = [self.caption(u, i) for u, i in zip(users, positive, strict=True)]
        return self.o["caption_weight"] * np.mean(texts)

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        loss = super().loss(users, positive, negative, reg_weight)
        if self.o["vecf_loss"] == "bce":
            pairs = list(zip(users, positive, negative, strict=True))
            own = [np.log1p(np.exp(-self.score(u, i))) for u, i, _ in pairs]
            other = [np.log1p(np.exp(self.score(u, j))) for u, _, j in pairs]
            bpr = [np.log1p(np.exp(self.score(u, j) - self.score(u, i))) for u, i, j in pairs]
            loss += np.mean(own + other) - np.mean(bpr)
        return loss + self._captions(users, positive)

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        loss = super().softmax_loss(users, positive, shared, reg_weight)
        return loss + self._captions(users, positive)
