"""FREEDOM's and MGCN's equations as written: dense graphs, row by row, float64 numpy."""

from __future__ import annotations

import numpy as np
from oracle import Oracle, norm, sigmoid
from oracle_alignrec import cosine, inverse_root, linear


def light_gcn(pairs, p, q, layers):
    """On the one graph of users and items together."""
    users = len(p)
    adjacency = np.zeros((users + len(q), users + len(q)))
    for u, i in pairs:
        adjacency[u, users + i] = adjacency[users + i, u] = 1.0
    root = inverse_root(adjacency.sum(1))
    each = [np.vstack([p, q])]
    for _ in range(layers):
        each.append(root @ adjacency @ root @ each[-1])
    mean = np.mean(each, axis=0)
    return mean[:users], mean[users:]


class GraphOracle(Oracle):
    KEYS = ("use_annotations", "neighbours_count", "content_layers", "id_layers")
    weighted = False

    def __init__(self, model, features, pictured, tokens, seen, **options):
        self.begin(model, features, pictured, tokens, seen, options)
        self.similar = {name: self.item_graph(name, self.f[name]) for name in self.modalities}
        self.pairs = options["interactions"]
        self.ids = self.w["user_embedding.weight"], np.array([self.q(i) for i in self.count])
        self.users, self.items = self.final(self.pairs)

    def begin(self, model, features, pictured, tokens, seen, options):
        super().__init__(model, features, pictured, tokens, seen, **options)
        self.model, self.count = model, range(len(features))
        self.modalities = ["picture", "text"] if options["use_annotations"] else ["picture"]
        self.f = {"picture": [norm(x) * bool(on) for x, on in zip(features, pictured, strict=True)]}
        self.f["text"] = [self.text(i) for i in self.count]

    def text(self, i):
        """Weights of all tokens for one item."""
        others = [j for j in self.count if self.seen[j] and self.tokens[j]]
        vector = np.zeros(1 + max(t for row in self.tokens for t in row))
        for t in self.tokens[i]:
            having = sum(t in self.tokens[j] for j in others)
            vector[t] = np.log((1 + len(others)) / (1 + having)) + 1
        return norm(vector)

    def item_graph(self, name, f):
        graph = np.zeros((len(f), len(f)))
        # Which of equally similar items are neighbours is free: read from the model.
        linked = self.model.item_graph(name).toarray() != 0
        for i in self.count:
            if not f[i].any():
                assert not linked[i].any()
                continue
            others = [j for j in self.count if j != i and self.seen[j] and f[j].any()]
            cosines = sorted((cosine(f[i], f[j]) for j in others), reverse=True)
            cosines = [1.0, *cosines[: self.o["neighbours_count"] - 1]]
            near = [j for j in np.flatnonzero(linked[i]) if j != i]
            assert linked[i, i]
            assert set(near) <= set(others)
            found = [1.0, *sorted((cosine(f[i], f[j]) for j in near), reverse=True)]
            if self.weighted:
                cosines = [x for x in cosines if x > 0]
            np.testing.assert_allclose(found, cosines, atol=1e-6)
            graph[i, [i, *near]] = [
                1.0,
                *(cosine(f[i], f[j]) if self.weighted else 1 for j in near),
            ]
        root = inverse_root(graph.sum(1))
        return root @ graph @ root

    def content(self, name, i):
        """W_m f_m of one item; of the picture, after the adapter."""
        if name == "picture":
            return self.w["projection.weight"] @ self.e(i)
        rows = self.w["token_embedding.weight"]
        return sum((self.f["text"][i][t] * rows[t] for t in self.tokens[i]), np.zeros(len(rows[0])))

    def score(self, u, i, annotated=False):
        return float(self.users[u] @ self.items[i])

    def lengths(self, u, i, annotated=False):
        return self.users[u] @ self.users[u], self.items[i] @ self.items[i]


class FreedomOracle(GraphOracle):
    KEYS = (*GraphOracle.KEYS, "picture_share", "content_loss_weight")

    def final(self, pairs):
        users, items = light_gcn(pairs, *self.ids, self.o["id_layers"])
        graph = self.similar["picture"]
        if "text" in self.modalities:
            share = self.o["picture_share"]
            graph = share * graph + (1 - share) * self.similar["text"]
        h = self.ids[1]
        for _ in range(self.o["content_layers"]):
            h = graph @ h
        return users, items + h

    def with_content(self, plain, *columns):
        """A loss on the epoch's pruned graph, and those with the contents as item vectors."""
        users, items = self.users, self.items
        # Which interactions are left is a draw, so it is read from the model.
        kept = zip(*self.model.pruned()["users"].matrix.indices().tolist(), strict=True)
        self.users, self.items = self.final(list(kept))
        total, own = plain(*columns), self.items
        for name in self.modalities:
            self.items = [self.content(name, i) for i in self.count]
            total += self.o["content_loss_weight"] * plain(*columns[:-1], 0.0)
        self.users, self.items = users, items
        assert own is not items
        return total

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        return self.with_content(super().loss, users, positive, negative, reg_weight)

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        return self.with_content(super().softmax_loss, users, positive, shared, reg_weight)


class MgcnOracle(GraphOracle):
    KEYS = (*GraphOracle.KEYS, "align_weight", "align_temperature")
    weighted = True

    def final(self, pairs):
        z = np.vstack(light_gcn(pairs, *self.ids, self.o["id_layers"]))
        taken = np.zeros((len(self.ids[0]), len(self.count)))
        for u, i in pairs:
            taken[u, i] = 1.0
        taken = inverse_root(taken.sum(1)) @ taken @ inverse_root(taken.sum(0))
        views = {}
        for name in self.modalities:
            gates = [
                sigmoid(linear(self.content(name, i), self.w, f"purifiers.{name}"))
                for i in self.count
            ]
            t = self.ids[1] * np.array(gates)
            for _ in range(self.o["content_layers"]):
                t = self.similar[name] @ t
            views[name] = np.vstack([taken @ t, t])
        side = np.array(
            [self.side({m: v[n] for m, v in views.items()}, z[n]) for n in range(len(z))]
        )
        self.parts = [np.split(x, [len(taken)]) for x in (side, z)]
        return np.split(z + side, [len(taken)])

    def side(self, t, z):
        """Of one user or item."""
        if len(t) == 1:
            return t["picture"]
        w = self.w
        logits = {
            m: w["fuser.attention.weight"][0] @ np.tanh(linear(x, w, "fuser.hidden"))
            for m, x in t.items()
        }
        total = sum(np.exp(x) for x in logits.values())
        common = sum(np.exp(logits[m]) / total * t[m] for m in t)
        specific = [(t[m] - common) * sigmoid(linear(z, w, f"fuser.gates.{m}")) for m in t]
        return (common + sum(specific)) / 3

    def alignment(self, users, positive):
        cost = 0.0
        for which, chosen in enumerate((sorted(set(users)), sorted(set(positive)))):
            side, z = (part[which][chosen] for part in self.parts)
            for r in range(len(chosen)):
                logits = [cosine(side[r], other) / self.o["align_temperature"] for other in z]
                cost += (np.log(np.exp(logits).sum()) - logits[r]) / len(chosen)
        return self.o["align_weight"] * cost

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        plain = super().loss(users, positive, negative, reg_weight)
        return plain + self.alignment(users, positive)

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        plain = super().softmax_loss(users, positive, shared, reg_weight)
        return plain + self.alignment(users, positive)
