"""ContentPrior's equations as written: item by item, float64 numpy."""

from __future__ import annotations

import numpy as np
from oracle import norm
from oracle_graphs import GraphOracle


class ContentPriorOracle(GraphOracle):
    KEYS = (
        "unseen_bias", "use_ids", "use_history", "use_image", "use_annotations", "neighbours_count",
        "neighbour_weight", "prior_weight", "temperature",
    )  # fmt: skip

    def __init__(self, model, features, pictured, tokens, seen, **options):
        self.begin(model, features, pictured, tokens, seen, options)
        self.pairs = options["interactions"]
        if not options["use_image"]:
            self.modalities.remove("picture")
        self.linked = dict(model.matrices())["neighbours"].toarray() != 0
        self.z = [self.content(i) + (self.q(i) if options["use_ids"] else 0.0) for i in self.count]
        self.items = [self.smoothed(i) for i in self.count]

    def content(self, i):
        parts = [self.w["projection.weight"] @ self.e(i)] if self.o["use_image"] else []
        if self.o["use_annotations"]:
            weights = self.f["text"][i]
            parts += [weights[t] * self.w["token_embedding.weight"][t] for t in self.tokens[i]]
        return norm(np.asarray(sum(parts)))

    def closeness(self, i, j):
        return sum(self.f[name][i] @ self.f[name][j] for name in self.modalities)

    def smoothed(self, i):
        has = [any(self.f[name][j].any() for name in self.modalities) for j in self.count]
        sources = [j for j in self.count if j != i and self.seen[j] and has[j]]
        # Which of equally similar items are neighbours is free: read from the model.
        near = np.flatnonzero(self.linked[i])
        wanted = sorted((self.closeness(i, j) for j in sources), reverse=True) if has[i] else []
        wanted = wanted[: self.o["neighbours_count"]]
        found = sorted((self.closeness(i, j) for j in near), reverse=True)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        mean = np.mean([self.z[j] for j in near], axis=0) if len(near) else 0.0
        return norm(self.z[i] + self.o["neighbour_weight"] * mean)

    def user(self, u, target=None):
        if not self.o["use_history"]:
            return norm(self.p(u)) / self.o["temperature"]
        history = {j for v, j in self.pairs if v == u} - {target}
        h = norm(np.mean([self.items[j] for j in history], axis=0)) if history else np.zeros(1)
        return norm(h + (self.p(u) if self.o["use_ids"] else 0.0)) / self.o["temperature"]

    def bias(self, i):
        if self.seen[i]:
            return self.w["item_bias.weight"][i, 0]
        mean = np.mean([self.w["item_bias.weight"][j, 0] for _, j in self.pairs])
        return self.o["unseen_bias"] * mean

    def score(self, u, i, annotated=False, target=None):
        known = self.w["global_bias"] + self.w["user_bias.weight"][u, 0]
        return float(self.user(u, target) @ self.items[i] + known + self.bias(i))

    def length(self, i):
        return self.items[i] @ self.items[i] + self.bias(i) ** 2

    def prior(self):
        if not self.o["use_ids"]:
            return 0.0
        pairs, total = set(self.pairs), 0.0
        for i in {i for _, i in pairs}:
            total += self.q(i) @ self.q(i) / sum(j == i for _, j in pairs)
        for u in {u for u, _ in pairs} if self.o["use_history"] else ():
            total += self.p(u) @ self.p(u) / sum(v == u for v, _ in pairs)
        kappa = self.o["prior_weight"]
        if kappa is None:
            kappa = 50.0 if self.modalities == ["picture"] else 500.0
        return kappa * total / len(pairs)

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        total = 0.0
        for u, i, j in zip(users, positive, negative, strict=True):
            difference = self.score(u, i, target=i) - self.score(u, j, target=i)
            user = self.user(u, i)
            total += np.log1p(np.exp(-difference))
            total += reg_weight * (user @ user + self.length(i) + self.length(j))
        return total / len(users) + self.prior()

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        total = 0.0
        for u, i in zip(users, positive, strict=True):
            scores = [self.score(u, j, target=i) for j in [i, *(j for j in shared if j != i)]]
            user, lengths = self.user(u, i), np.mean([self.length(j) for j in shared])
            total += np.log(np.exp(np.array(scores) - scores[0]).sum())
            total += reg_weight * (user @ user + self.length(i) + lengths)
        return total / len(users) + self.prior()
