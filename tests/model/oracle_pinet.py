"""PiNet's equations as written: one item and one token at a time."""

from __future__ import annotations

import numpy as np
from oracle import Oracle, leaky, norm, sigmoid


class PiNetOracle(Oracle):
    KEYS = ("semantic_weight", "positive_weight")

    def feature(self, gate, i):
        e = self.e(i)
        return norm(e * self.delta(gate, e))

    def v(self, i):
        w = self.w
        return leaky(w["visual_map.weight"] @ self.feature("visual_gate", i) + w["visual_map.bias"])

    def pinet(self, u, i, annotated=False):
        return self.p(u) @ self.q(i) + self.w["user_visual.weight"][u] @ self.v(i)

    def lengths(self, u, i, annotated=False):
        theta, v = self.w["user_visual.weight"][u], self.v(i)
        bias = self.w["item_bias.weight"][i, 0] * self.seen[i]
        user = self.p(u) @ self.p(u) + theta @ theta
        return user, self.q(i) @ self.q(i) + v @ v + bias**2

    def token_logit(self, i, token):
        w = self.w
        row = w["head.map.weight"]
        row = row[token - 1] if "head.vectors" not in w else w["head.vectors"][token - 1] @ row
        return row @ self.feature("semantic_gate", i) + w["head.bias"][token - 1]

    def semantic(self, items):
        """Mean over labelled items and tokens of the binary cross-entropy; 0 without any."""
        n_tokens = len(self.w["head.bias"])
        costs = []
        for i in set(items):
            if not (self.tokens[i] and self.pictured[i] and self.seen[i]):
                continue
            for token in range(1, n_tokens + 1):
                chance = sigmoid(self.token_logit(i, token))
                if token in self.tokens[i]:
                    costs.append(-self.o["positive_weight"] * np.log(chance))
                else:
                    costs.append(-np.log(1.0 - chance))
        return np.mean(costs) if costs else 0.0

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        plain = super().loss(users, positive, negative, reg_weight)
        return plain + self.o["semantic_weight"] * self.semantic([*positive, *negative])

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        plain = super().softmax_loss(users, positive, shared, reg_weight)
        return plain + self.o["semantic_weight"] * self.semantic([*positive, *shared])
