"""AlignRec's equations as written: one item after the other, dense graphs, float64 numpy."""

from __future__ import annotations

from math import erf

import numpy as np
from oracle import Oracle, norm, sigmoid


def layer_norm(x, w, name):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def gelu(x):
    return np.array([0.5 * t * (1.0 + erf(t / np.sqrt(2.0))) for t in x])


def cosine(a, b):
    return norm(a) @ norm(b)


def inverse_root(degrees):
    return np.diag([1.0 / np.sqrt(d) if d else 0.0 for d in degrees])


class AlignRecOracle(Oracle):
    KEYS = (
        *("image_tokens", "attention_blocks", "attention_heads", "neighbours_count"),
        *("id_layers", "content_layers", "align_weight", "align_temperature"),
        *("cosine_weight", "similarity_weight"),
    )

    def __init__(self, model, features, pictured, tokens, seen, pairs, **options):
        super().__init__(model, features, pictured, tokens, seen, **options)
        self.items = range(len(features))
        self.taken = np.zeros((model.n_users, len(features)))
        for u, i in pairs:
            self.taken[u, i] = 1.0
        self.m = self.content_vectors()
        self.near = [self.nearest(i) for i in self.items]
        self.users, self.all_items = self.id_parts()
        self.user_content, self.item_content = self.content_parts()

    # -------------------------------------------------------------------- content

    def encode(self, features, tokens, pictured):
        """m of one item before centring."""
        w = {k.removeprefix("content_encoder."): v for k, v in self.w.items()}
        rows = [w["summary"]]
        if pictured:
            rows += np.split(linear(features, w, "image_map"), self.o["image_tokens"])
        rows += [w["tokens.weight"][t] for t in tokens]
        heads = self.o["attention_heads"]
        for b in range(self.o["attention_blocks"]):
            name = f"blocks.{b}"
            joined = [linear(layer_norm(x, w, f"{name}.before_attention"), w, f"{name}.inputs")
                      for x in rows]  # fmt: skip
            q, k, v = (
                [np.split(part, heads) for part in parts]
                for parts in zip(*(np.split(x, 3) for x in joined), strict=True)
            )
            after = []
            for r, x in enumerate(rows):
                heard = []
                for h in range(heads):
                    logits = [q[r][h] @ k[s][h] / np.sqrt(len(q[r][h])) for s in range(len(rows))]
                    shares = np.exp(np.array(logits) - max(logits))
                    shares /= shares.sum()
                    heard.append(sum(shares[s] * v[s][h] for s in range(len(rows))))
                x = x + linear(np.concatenate(heard), w, f"{name}.output")
                up = gelu(linear(layer_norm(x, w, f"{name}.before_network"), w, f"{name}.up"))
                after.append(x + linear(up, w, f"{name}.down"))
            rows = after
        return layer_norm(np.mean(rows, axis=0), w, "norm")

    def filled(self, i):
        return bool(self.pictured[i]) or bool(self.tokens[i])

    def content_vectors(self):
        raw = [self.encode(self.features[i], self.tokens[i], self.pictured[i]) for i in self.items]
        mean = np.mean([raw[i] for i in self.items if self.filled(i) and self.seen[i]], axis=0)
        return [norm(raw[i] - mean) if self.filled(i) else np.zeros_like(mean) for i in self.items]

    def nearest(self, i):
        if not self.filled(i):
            return []
        others = [j for j in self.items if j != i and self.seen[j] and self.filled(j)]
        ranked = sorted(others, key=lambda j: -(self.m[i] @ self.m[j]))
        return ranked[: self.o["neighbours_count"]]

    # --------------------------------------------------------------------- graphs

    def id_parts(self):
        """LightGCN on the one graph of users and items together."""
        users, items = self.taken.shape
        adjacency = np.zeros((users + items, users + items))
        adjacency[:users, users:] = self.taken
        adjacency[users:, :users] = self.taken.T
        root = inverse_root(adjacency.sum(1))
        step = root @ adjacency @ root
        q = np.array([self.q(i) for i in self.items])
        layers = [np.vstack([self.w["user_embedding.weight"], q])]
        for _ in range(self.o["id_layers"]):
            layers.append(step @ layers[-1])
        mean = np.mean(layers, axis=0)
        return mean[:users], mean[users:]

    def content_parts(self):
        w = self.w
        h = []
        for i in self.items:
            own = self.q(i)
            if not self.seen[i] and self.near[i]:
                own = np.mean([self.q(j) for j in self.near[i]], axis=0)
            gate = sigmoid(linear(linear(self.m[i], w, "content_map"), w, "gate_map"))
            h.append(own * gate)
        h = np.array(h)
        graph = np.eye(len(self.near))
        for i, near in enumerate(self.near):
            graph[i, near] = 1.0
        root = inverse_root(graph.sum(1))
        for _ in range(self.o["content_layers"]):
            h = root @ graph @ root @ h
        taken = inverse_root(self.taken.sum(1)) @ self.taken @ inverse_root(self.taken.sum(0))
        return taken @ h, h

    def final(self, u, i):
        return self.users[u] + self.user_content[u], self.all_items[i] + self.item_content[i]

    def score(self, u, i, annotated=False):
        user, item = self.final(u, i)
        return float(user @ item)

    def lengths(self, u, i, annotated=False):
        user, item = self.final(u, i)
        return user @ user, item @ item

    # --------------------------------------------------------------------- losses

    def info_nce(self, first, second):
        cost = 0.0
        for r, row in enumerate(first):
            logits = [cosine(row, other) / self.o["align_temperature"] for other in second]
            cost += np.log(np.exp(logits).sum()) - logits[r]
        return cost / len(first)

    def alignments(self, users, positive):
        some, chosen = sorted(set(users)), sorted(set(positive))
        alike = self.info_nce(self.user_content[some], self.users[some])
        alike += self.info_nce(self.item_content[chosen], self.all_items[chosen])
        pairs = [self.final(u, i) for u, i in zip(users, positive, strict=True)]
        apart = np.mean([1.0 - cosine(user, item) for user, item in pairs])
        off = [
            self.item_content[i] @ self.item_content[j] - self.m[i] @ self.m[j]
            for i in chosen
            for j in chosen
        ]
        distance = np.sqrt(np.square(off).sum()) / len(chosen)
        weighted = self.o["align_weight"] * alike + self.o["cosine_weight"] * apart
        return weighted + self.o["similarity_weight"] * distance

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        plain = super().loss(users, positive, negative, reg_weight)
        return plain + self.alignments(users, positive)

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        plain = super().softmax_loss(users, positive, shared, reg_weight)
        return plain + self.alignments(users, positive)
