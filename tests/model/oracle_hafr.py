"""HAFR's equations as written: concatenated inputs, one ingredient and one component at a time."""

from __future__ import annotations

import numpy as np
from oracle import Oracle


def softmax(logits):
    shares = np.exp(np.array(logits) - max(logits))
    return shares / shares.sum()


class HafrOracle(Oracle):
    """HAFR and both readings of HAFR_non_i, distinguished by the existing weights."""

    def m(self, i):  # the picture
        return self.w["image_map.weight"] @ self.e(i) + self.w["image_map.bias"]

    def g(self, u, i):  # the ingredients
        w = self.w
        rows = [w["token_embedding.weight"][t] for t in self.tokens[i]]
        if "token_key.weight" not in w:
            return np.mean(rows, axis=0)
        whole = np.hstack([w[f"token_{k}.weight"] for k in ("key", "user", "image")])
        m = self.m(i) if self.pictured[i] else np.zeros(len(self.p(u)))
        inputs = [np.concatenate([c, self.p(u), m]) for c in rows]
        logits = [
            w["token_weight.weight"][0] @ np.tanh(whole @ x + w["token_image.bias"]) for x in inputs
        ]
        return sum(share * c for share, c in zip(softmax(logits), rows, strict=True))

    def x(self, u, i):  # the item's vector for u
        w = self.w
        components = [self.q(i)]
        if self.pictured[i]:
            components.append(self.m(i))
        if self.tokens[i] and "token_embedding.weight" in w:
            components.append(self.g(u, i))
        whole = np.hstack([w["component_user.weight"], w["component_item.weight"]])
        inputs = [np.concatenate([self.p(u), z]) for z in components]
        logits = [
            w["component_weight.weight"][0] @ np.tanh(whole @ x + w["component_item.bias"])
            for x in inputs
        ]
        return sum(share * z for share, z in zip(softmax(logits), components, strict=True))

    def hafr(self, u, i, annotated=False):
        w, p, x = self.w, self.p(u), self.x(u, i)
        z = w["hidden.weight"] @ np.concatenate([p, x, p * x]) + w["hidden.bias"]
        return w["output.weight"][0] @ np.maximum(z, 0.0)

    hafr_non_i = hafr

    def lengths(self, u, i, annotated=False):
        p, x = self.p(u), self.x(u, i)
        return p @ p, x @ x + (self.w["item_bias.weight"][i, 0] * self.seen[i]) ** 2
