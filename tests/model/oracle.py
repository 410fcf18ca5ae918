"""The equations as written: one pair at a time, float64 numpy, no shared code with the models.

Weights come from ``model.state_dict()``; features and annotations from the files' own content.
Slow and plain on purpose. Where a class of the package is named, only its weights are read.
"""

from __future__ import annotations

import numpy as np

EPS, SLOPE = 1e-12, 0.01


def leaky(x):
    return np.where(x > 0, x, SLOPE * x)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def norm(x):
    return x / max(np.sqrt((x * x).sum()), EPS)


class Oracle:
    """Scores of single pairs for one model.

    Args:
        model: Any model of the package.
        features: e before any adapter [I, D]; rows of items without picture are ignored.
        pictured: bool [I].
        tokens: for each item the list of its token ids.
        seen: bool [I], items with a training interaction.
    """

    def __init__(self, model, features, pictured, tokens, seen, **options):
        self.w = {k: v.detach().cpu().double().numpy() for k, v in model.state_dict().items()}
        self.features, self.pictured, self.tokens, self.seen = features, pictured, tokens, seen
        self.o = options

    def score(self, u: int, i: int, annotated: bool = False) -> float:
        name = self.o["name"]
        method = "cierec" if name.startswith("CIERec") else name.lower()
        w, seen = self.w, float(self.seen[i])
        biases = w["global_bias"] + w["user_bias.weight"][u, 0] + w["item_bias.weight"][i, 0] * seen
        return float(biases + getattr(self, method)(u, i, annotated))

    def e(self, i):  # Eq. 2 with the adapter
        if not self.pictured[i]:
            return np.zeros(self.features.shape[1])
        if "encoder.adapter.weight" not in self.w:
            return self.features[i]
        return self.w["encoder.adapter.weight"] @ self.features[i] + self.w["encoder.adapter.bias"]

    def q(self, i):  # Eq. 1; untrained ids count as zero
        return self.w["item_embedding.weight"][i] * float(self.seen[i])

    def p(self, u):
        return self.w["user_embedding.weight"][u]

    def mf(self, u, i, annotated):
        return self.p(u) @ self.q(i)

    def mf_image(self, u, i, annotated):
        return self.p(u) @ (self.w["projection.weight"] @ self.e(i))

    def mf_semantics(self, u, i, annotated):
        rows = [self.w["token_embedding.weight"][t] for t in self.tokens[i]]
        return self.p(u) @ np.mean(rows, axis=0) if rows else 0.0

    def content_vector(self, i, annotated):
        w, f = self.w, np.zeros(self.w["user_embedding.weight"].shape[1])
        if "item_embedding.weight" in w:
            f = f + self.q(i)
        if "projection.weight" in w:
            f = f + w["projection.weight"] @ self.e(i)
        read = annotated or self.o["annotation_at_inference"]
        if "token_embedding.weight" in w and read and self.tokens[i]:
            f = f + np.mean([w["token_embedding.weight"][t] for t in self.tokens[i]], axis=0)
        return f

    def mf_content(self, u, i, annotated):
        return self.p(u) @ self.content_vector(i, annotated)

    def style_vector(self, i):
        w = self.w
        category = self.tokens[i][0] if self.tokens[i] else None
        l_cat = 0.0 if category is None else w["category_embedding.weight"][category]
        return w["projection.weight"] @ self.e(i) - l_cat + self.q(i)

    def deepstyle(self, u, i, annotated):
        return self.p(u) @ self.style_vector(i)

    def vbpr(self, u, i, annotated):
        w = self.w
        visual = w["user_visual.weight"][u] @ (w["projection.weight"] @ self.e(i))
        return self.p(u) @ self.q(i) + visual + w["visual_bias.weight"][0] @ self.e(i)

    def delta(self, gate, e, p=None):
        w = self.w
        argument = w[f"{gate}.content_map.weight"] @ e + w[f"{gate}.content_map.bias"]
        argument = argument + w[f"{gate}.gate_map.weight"] @ w[f"{gate}.gate_vector"]
        if p is not None:
            argument = argument + w[f"{gate}.user_map.weight"] @ p
        return sigmoid(argument) if self.o["gate_activation"] == "sigmoid" else argument

    def v(self, u, i):  # Eq. 3
        w, e = self.w, self.e(i)
        x = norm(e * self.delta("visual_gate", e, self.p(u)))
        return leaky(w["visual_gate.mlp.weight"] @ x + w["visual_gate.mlp.bias"])

    def c(self, i):  # Eq. 4
        e = self.e(i)
        return norm(e * self.delta("inference_gate", e)) if self.gated else e

    @property
    def gated(self):
        return "inference_gate.gate_vector" in self.w

    def lstm(self, x, h, m):
        w = self.w
        z = w["semantic.cell.weight_ih"] @ x + w["semantic.cell.bias_ih"]
        z = z + w["semantic.cell.weight_hh"] @ h + w["semantic.cell.bias_hh"]
        i, f, g, o = np.split(z, 4)
        m = sigmoid(f) * m + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(m), m

    def s(self, i, annotated):  # Eq. 5
        d = self.w["user_embedding.weight"].shape[1]
        h, m, c = np.zeros(d), np.zeros(d), self.c(i)
        readable = annotated and bool(self.tokens[i]) and "semantic.tokens.weight" in self.w
        rows = [self.w["semantic.tokens.weight"][t] for t in self.tokens[i]] if readable else []
        if self.o.get("lstm_input") == "concat" and "semantic.tokens.weight" in self.w:
            s_hat = np.mean(rows, axis=0) if rows else np.zeros_like(c)
            return self.lstm(np.concatenate([c, s_hat]), h, m)[0]
        h, m = self.lstm(c, h, m)
        if rows and self.o.get("annotation_encoder") == "sequence":
            for row in rows:
                h, m = self.lstm(row, h, m)
        elif rows:
            h, m = self.lstm(np.mean(rows, axis=0), h, m)
        return h

    def f(self, u, i, annotated):  # Eq. 7
        w = self.w
        parts = [self.q(i)] + ([self.v(u, i)] if self.gated else []) + [self.s(i, annotated)]
        if self.o["fusion"] == "sum":
            return sum(parts)
        weights = [w[f"fusion.maps.{k}.weight"] for k in range(len(parts))]
        z = np.hstack(weights) @ np.concatenate(parts) + w["fusion.maps.0.bias"]
        if self.o["fusion"] == "mlp":
            return leaky(z)
        gates = np.split(sigmoid(z), len(parts))
        return sum(g * part for g, part in zip(gates, parts, strict=True))

    def cierec(self, u, i, annotated):  # Eq. 8
        w = self.w
        score = self.p(u) @ self.f(u, i, annotated)
        if self.o["backbone"] == "VBPR":
            c = self.c(i)
            score = score + w["content_bias.weight"][0] @ c
            a = w["user_content.weight"][u]
            score = score + a @ (w["content_map.weight"] @ c if "content_map.weight" in w else c)
        return score

    def lengths(self, u, i, annotated):
        """Squared lengths of what enters Eq. 8: the user's vectors, the item's and its bias."""
        name, w, seen = self.o["name"], self.w, float(self.seen[i])
        user = [self.p(u)]
        bias = w["item_bias.weight"][i, 0] * seen
        if name.startswith("CIERec"):
            item = [self.f(u, i, annotated)]
            if self.o["fusion"] == "mlp":
                item[0] = item[0] - w["fusion.maps.0.bias"]
            if self.o["backbone"] == "VBPR":
                c = self.c(i)
                user.append(w["user_content.weight"][u])
                item.append(w["content_map.weight"] @ c if "content_map.weight" in w else c)
                bias = bias + w["content_bias.weight"][0] @ c
        elif name == "VBPR":
            user.append(w["user_visual.weight"][u])
            item = [self.q(i), w["projection.weight"] @ self.e(i)]
            bias = bias + w["visual_bias.weight"][0] @ self.e(i)
        elif name == "MF_Image":
            item = [w["projection.weight"] @ self.e(i)]
        elif name == "MF_Semantics":
            rows = [w["token_embedding.weight"][t] for t in self.tokens[i]]
            item = [np.mean(rows, axis=0) if rows else np.zeros(1)]
        elif name == "MF_Content":
            item = [self.content_vector(i, annotated)]
        elif name == "DeepStyle":
            item = [self.style_vector(i)]
        else:
            item = [self.q(i)]
        return sum((x @ x) for x in user), sum((x @ x) for x in item) + bias**2

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        """Mean over pairs of log(1 + exp(-(y_ui - y_uj))) plus L2 of the vectors in the score."""
        total = penalty = 0.0
        for u, i, j in zip(users, positive, negative, strict=True):
            difference = self.score(u, i, annotated) - self.score(u, j, annotated)
            total += np.log1p(np.exp(-difference))
            user, item = self.lengths(u, i, annotated)
            penalty += user + item + self.lengths(u, j, annotated)[1]
        return (total + reg_weight * penalty) / len(users) + self.guidance({*positive, *negative})

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        """Mean over rows of -log of the own item's share among itself and the shared items."""
        total = penalty = 0.0
        for u, i in zip(users, positive, strict=True):
            others = [self.score(u, j, annotated) for j in shared if j != i]
            own = self.score(u, i, annotated)
            total += np.log(np.exp(np.array([own, *others]) - own).sum())
            user, item = self.lengths(u, i, annotated)
            penalty += user + item + np.mean([self.lengths(u, j, annotated)[1] for j in shared])
        return (total + reg_weight * penalty) / len(users) + self.guidance({*positive, *shared})

    def guidance(self, items):
        """Over the annotated items: mean of -log P(k | c_i), P by cosine / 0.1 and share of k."""
        known = [i for i in items if self.tokens[i]]
        if not self.o.get("guidance_weight") or not known:
            return 0.0
        table = self.w["semantic.tokens.weight"]
        counts = np.zeros(len(table))
        for i in self.seen.nonzero()[0]:
            for k in self.tokens[i]:
                counts[k] += 1
        share = np.maximum(counts, 0.5)[1:] / counts.sum()
        losses = []
        for i in known:
            cosines = np.array([norm(row) @ self.c(i) for row in table[1:]])
            p = share * np.exp(cosines / 0.1)
            losses.append(np.mean([-np.log(p[k - 1] / p.sum()) for k in self.tokens[i]]))
        return self.o["guidance_weight"] * np.mean(losses)
