"""AMF, AMR, DropoutNet and CLCRec as written: one pair at a time; gradients by differences."""

from __future__ import annotations

import numpy as np
import torch
from oracle import Oracle, leaky, norm

STEP = 1e-5  # of central differences


class AdversarialOracle(Oracle):
    """AMF and AMR: the clean loss and the loss at perturbed vectors (AMF) or features (AMR)."""

    noise: dict

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.noise = {}

    def moved(self, kind, row, value):
        return value + self.noise[kind, row] if (kind, row) in self.noise else value

    def p(self, u):
        return self.moved("user", u, super().p(u))

    def q(self, i):
        return self.moved("item", i, self.w["item_embedding.weight"][i]) * float(self.seen[i])

    def e(self, i):
        e = super().e(i)
        return self.moved("feature", i, e) if self.pictured[i] else e

    amf = Oracle.mf

    def vector(self, i):
        return self.q(i) + self.w["projection.weight"] @ self.e(i)

    def amr(self, u, i, annotated):
        return self.p(u) @ self.vector(i) + self.w["visual_bias.weight"][0] @ self.e(i)

    def lengths(self, u, i, annotated):
        bias = self.w["item_bias.weight"][i, 0] * float(self.seen[i])
        if self.o["name"] == "AMF":
            return self.p(u) @ self.p(u), self.q(i) @ self.q(i) + bias**2
        bias = bias + self.w["visual_bias.weight"][0] @ self.e(i)
        return self.p(u) @ self.p(u), self.vector(i) @ self.vector(i) + bias**2

    def attack(self, places, loss):
        """The noise of length adv_eps at each place, along the gradient of ``loss()``."""
        noise = {}
        for kind, row in places:
            size = {"user": self.p, "item": self.q, "feature": self.e}[kind](row).shape[0]
            gradient = np.zeros(size)
            for k in range(size):
                ends = []
                for step in (STEP, -STEP):
                    self.noise = {(kind, row): step * np.eye(size)[k]}
                    ends.append(loss())
                gradient[k] = (ends[0] - ends[1]) / (2 * STEP)
            length = np.sqrt(gradient @ gradient)
            noise[kind, row] = self.o["adv_eps"] * gradient / length if length > 1e-12 else 0.0
        return noise

    def both(self, plain, users, items, reg_weight):
        """``plain(reg)`` without noise, and adv_weight times ``plain(0)`` at the attack."""
        self.noise = {}
        clean = plain(reg_weight)
        if self.o["name"] == "AMR":
            places = [("feature", i) for i in sorted({*items}) if self.pictured[i]]
        else:
            places = [("item", i) for i in sorted({*items})]
            if self.o["perturb"] == "both":
                places += [("user", u) for u in sorted({*users})]
        self.noise = self.attack(places, lambda: plain(0.0))
        attacked = plain(0.0)
        self.noise = {}
        return clean + self.o["adv_weight"] * attacked

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        plain, items = super().loss, positive + negative
        return self.both(lambda r: plain(users, positive, negative, r), users, items, reg_weight)

    def softmax_loss(self, users, positive, shared, reg_weight, annotated=False):
        plain, items = super().softmax_loss, positive + shared
        return self.both(lambda r: plain(users, positive, shared, r), users, items, reg_weight)


class DropoutNetOracle(Oracle):
    """Towers over standardised vectors; in the loss batch norm is over the distinct rows."""

    def standardised(self, side, row, known):
        table = self.w[f"{side}_preference"]
        rows = table[sorted(known)]
        deviation = rows.std(0)
        x = np.where(deviation > 1e-8, (table[row] - rows.mean(0)) / deviation, 0.0)
        return np.clip(x, -5, 5) if row in known else np.zeros_like(x)

    def user_input(self, u):
        users = {u for u, _ in self.o["interactions"]}
        return self.standardised("user", u, users)

    def item_input(self, i):
        parts = [self.standardised("item", i, set(np.flatnonzero(self.seen)))]
        parts.append(np.clip(self.e(i) * np.sqrt(len(self.e(i))), -5, 5))
        if "token_embedding.weight" in self.w:
            rows = [self.w["token_embedding.weight"][t] for t in self.tokens[i]]
            parts.append(np.mean(rows, axis=0) if rows else np.zeros(self.d))
        return np.concatenate(parts)

    @property
    def d(self):
        return self.w["user_preference"].shape[1]

    def tower(self, side, inputs, training):
        """All rows of a batch [m, n] at once, since batch norm depends on all of them."""
        w, k = {n.removeprefix(f"{side}_tower."): x for n, x in self.w.items()}, 0
        x = np.array(inputs)
        while f"maps.{k}.weight" in w:
            x = x @ w[f"maps.{k}.weight"].T
            mean, variance = w[f"norms.{k}.running_mean"], w[f"norms.{k}.running_var"]
            if training:
                mean, variance = x.mean(0), x.var(0)
            x = (x - mean) / np.sqrt(variance + 1e-3)
            x, k = np.tanh(x * w[f"norms.{k}.weight"] + w[f"norms.{k}.bias"]), k + 1
        return x @ w["out.weight"].T + w["out.bias"]

    def score(self, u, i, annotated=False):
        user = self.tower("user", [self.user_input(u)], training=False)[0]
        return float(user @ self.tower("item", [self.item_input(i)], training=False)[0])

    def target(self, u, i):
        v = self.w["item_preference"][i]
        return self.w["user_preference"][u] @ v[:-1] + v[-1]

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        u_rows, i_rows = sorted({*users}), sorted({*positive, *negative})
        f_u = self.tower("user", [self.user_input(u) for u in u_rows], training=True)
        f_v = self.tower("item", [self.item_input(i) for i in i_rows], training=True)
        errors, penalty = [], 0.0
        for u, i, j in zip(users, positive, negative, strict=True):
            a = f_u[u_rows.index(u)]
            penalty += a @ a
            for k in (i, j):
                b = f_v[i_rows.index(k)]
                penalty += b @ b
                if self.seen[k]:
                    errors.append((a @ b - self.target(u, k)) ** 2)
        return np.mean(errors) + reg_weight * penalty / len(users)


def tamed_draw(n_items, n):
    def draw(users):
        return (users.unsqueeze(1) * 7 + torch.arange(n).to(users) * 3) % (n_items - 1) + 1

    return draw


def tame(model):
    """Draws of CLCRec that the oracle can repeat."""
    if type(model).__name__ == "CLCRec":
        model.draw = tamed_draw(model.n_items, model.n_negatives)
        model.replaced = lambda shape, device: (
            torch.arange(shape[0] * shape[1], device=device).view(shape) % 3 == 0
        )


class CLCRecOracle(Oracle):
    def g(self, i):
        w, parts = self.w, [norm(self.e(i))]
        if "token_embedding.weight" in w:
            rows = [w["token_embedding.weight"][t] for t in self.tokens[i]]
            parts.append(norm(np.mean(rows, axis=0)) if rows else np.zeros(len(self.p(1))))
        hidden = leaky(w["content_in.weight"] @ np.concatenate(parts) + w["content_in.bias"])
        return w["content_out.weight"] @ hidden + w["content_out.bias"]

    def score(self, u, i, annotated=False):
        return float(self.p(u) @ (self.q(i) if self.seen[i] else self.g(i)))

    def nce(self, anchor, others):
        logits = np.array([anchor @ x for x in others]) / self.o["temperature"]
        return np.log(np.exp(logits - logits[0]).sum())

    def loss(self, users, positive, negative, reg_weight, annotated=False):
        n, share = self.o["contrastive_negatives"], self.o["contrastive_weight"]
        drawn = tamed_draw(len(self.seen), n)(torch.tensor(users)).tolist()
        total, z_users, z_items = 0.0, [], []
        for row, (u, i) in enumerate(zip(users, positive, strict=True)):
            places = [i, *drawn[row]]
            total += share * self.nce(norm(self.q(i)), [norm(self.g(k)) for k in places])
            mixed = [
                self.g(k) if (row * (1 + n) + column) % 3 == 0 else self.q(k)
                for column, k in enumerate(places)
            ]
            total += (1 - share) * self.nce(self.p(u), mixed)
            z_users.append(np.linalg.norm(self.p(u)))
            z_items += [np.linalg.norm(self.q(k)) for k in places]
        return total / len(users) + reg_weight * (np.mean(z_users) + np.mean(z_items)) / 2


def random_stage(model, seed=8):
    """Weights like those of a trained MF."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.5

    return {
        "user_embedding.weight": draw(model.n_users, model.size),
        "item_embedding.weight": draw(model.n_items, model.size),
        "item_bias.weight": draw(model.n_items, 1),
    }
