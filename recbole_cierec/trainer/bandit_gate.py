"""A gate R that is rewarded as the one of Eq. 6 and can learn from it: UCB1 over the same scales.

Auer, Cesa-Bianchi, Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine
Learning 47, 2002, Fig. 1. Each action is taken once; after that the one with the largest

    mean reward of the action + sqrt(2 ln t / n_action),

where t counts all rewards so far and n_action those of the action. As for the other gates, the
reward of an action is J = exp(-L) with the loss L of the next batch, and is in (0, 1]. The choice
has no state and draws no random numbers.
"""

from __future__ import annotations

import math


class BanditGate:
    """One branch's gate; the interface of :class:`~.gradient_gate.GradientGate`.

    Args:
        scales: The actions: factors on the gradient.
    """

    optimizer = None

    def __init__(self, scales: list[float]) -> None:
        self.scales = list(scales)
        self.counts = [0] * len(self.scales)
        self.sums = [0.0] * len(self.scales)  # of rewards
        self._current: int | None = None  # action of the current batch
        self._due: int | None = None  # action whose reward is due

    def choose(self) -> float:
        """The scale of this batch."""
        # An action that waits for its reward counts as taken.
        waiting = [int(k == self._current) for k in range(len(self.scales))]
        taken = [n + more for n, more in zip(self.counts, waiting, strict=True)]
        self._due = self._current
        self._current = taken.index(0) if 0 in taken else self._best()
        return self.scales[self._current]

    def _best(self) -> int:
        total = math.log(max(1, sum(self.counts)))
        # No reward yet: it is not chosen again before its first one.
        bounds = [
            -math.inf if n == 0 else s / n + math.sqrt(2 * total / n)
            for n, s in zip(self.counts, self.sums, strict=True)
        ]
        return bounds.index(max(bounds))

    def learn(self, loss: float) -> dict[str, float]:
        """Reward the action of the previous batch with this batch's loss; returns what to log:
        ``q`` is the action's mean reward."""
        if self._due is None:
            return {}
        action, self._due = self._due, None
        reward = math.exp(-loss)
        self.counts[action] += 1
        self.sums[action] += reward
        mean = self.sums[action] / self.counts[action]
        return {"reward": reward, "q": mean, "scale": self.scales[action]}

    def state_dict(self) -> dict:
        """Complete state between two batches, for an exact resume."""
        return {"counts": list(self.counts), "sums": list(self.sums), "current": self._current}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`.

        Raises:
            ValueError: The state is not of a gate with these scales.
        """
        counts, sums, current = state["counts"], state["sums"], state["current"]
        n = len(self.scales)
        if not _numbers(counts, int, n) or not _numbers(sums, float, n):
            raise ValueError(f"counts {counts!r} and sums {sums!r} of a gate with {n} scales")
        if current is not None and not (type(current) is int and 0 <= current < n):
            raise ValueError(f"action {current!r} of a gate with {n} scales")
        self.counts, self.sums, self._current = list(counts), list(sums), current


def _numbers(values: object, kind: type, n: int) -> bool:
    return isinstance(values, list) and len(values) == n and all(type(v) is kind for v in values)
