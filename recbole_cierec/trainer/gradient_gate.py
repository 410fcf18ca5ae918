"""The gradient-regularization gate R of CIERec (Sec. III-D3, Eq. 6).

For each branch (visual, semantic) a small network picks, once a batch, one of five scales for
the gradient that flows from the branch back into e_i. Its state is the previous action; its
reward J^(t) = exp(-L^(t+1)) needs the loss of the next batch, so it learns one batch late.

The paper's loss -log sigma(s_max * J) falls whenever the probability of the chosen action rises,
whatever the reward, because J > 0. ``paper`` implements this. ``reinforce`` samples an action and
compares its reward with the running mean, so it can learn which scale helps. ``fixed`` uses given
scales; ``off`` does not scale gradients.

docs/concepts/gates.md shows that the gates learn nothing: the seed decides what ``paper`` does.
"""

from __future__ import annotations

import math
from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from recbole_cierec.trainer.optimizers import load_state

MEMORY = 0.99  # of the running mean of rewards (reinforce)


class GradientGate:
    """One branch's gate: a linear layer and softmax over the actions, with its own Adam.

    Args:
        scales: The actions: factors on the gradient.
        mode: ``paper`` or ``reinforce``.
        learning_rate: Learning rate of Adam (the paper: 1e-5 to 5e-3).
        seed: Seed of the network's initial weights and of the sampled actions. The run's random
            numbers are not touched, so a gate changes only gradients.
    """

    def __init__(self, scales: list[float], mode: str, learning_rate: float, seed: int) -> None:
        self.scales, self.mode = list(scales), mode
        self.generator = torch.Generator().manual_seed(seed)
        n = len(self.scales)
        self.network = skip_init(nn.Linear, n, n)  # torch's init draws from the run's stream
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.uniform_(-(n**-0.5), n**-0.5, generator=self.generator)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.action = n - 1  # the state before the first batch: full gradient
        self.mean_reward: float | None = None
        # (state, action) of the current batch, and of the one whose reward is due
        self._current: list[int] | None = None
        self._due: list[int] | None = None

    def _probabilities(self, state: int) -> Tensor:
        one_hot = F.one_hot(torch.tensor(state), len(self.scales)).float()
        return torch.softmax(self.network(one_hot), 0)

    def choose(self) -> float:
        """Pick the action of this batch from the previous one; returns its scale."""
        before = self.action
        probabilities = self._probabilities(before).detach()
        if self.mode == "paper":
            self.action = int(probabilities.argmax())
        else:
            self.action = int(torch.multinomial(probabilities, 1, generator=self.generator))
        self._due, self._current = self._current, [before, self.action]
        return self.scales[self.action]

    def learn(self, loss: float) -> dict[str, float]:
        """Reward the action of the previous batch with this batch's loss; returns what to log."""
        if self._due is None:
            return {}
        (state, action), self._due = self._due, None
        reward = math.exp(-loss)  # J
        probability = self._probabilities(state)[action]  # s_max
        if self.mode == "paper":
            gate_loss = -F.logsigmoid(probability * reward)  # Eq. 6
        else:
            mean = reward if self.mean_reward is None else self.mean_reward
            gate_loss = -torch.log(probability) * (reward - mean)
            self.mean_reward = MEMORY * mean + (1 - MEMORY) * reward
        self.optimizer.zero_grad()
        gate_loss.backward()
        self.optimizer.step()
        return {"reward": reward, "q": float(probability.detach()), "scale": self.scales[action]}

    def state_dict(self) -> dict:
        """Complete state between two batches, for an exact resume."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "action": self.action,
            "current": self._current,
            "mean_reward": self.mean_reward,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`.

        Raises:
            ValueError: The state is not of a gate with these scales.
        """
        current, reward = state["current"], state["mean_reward"]
        pair = isinstance(current, list) and len(current) == 2
        actions = [state["action"], *(current if pair else ())]
        known = range(len(self.scales))
        # Check the type as well: 4.0, True and a tensor equal integers, but fail when used.
        if not (pair or current is None) or not all(type(k) is int and k in known for k in actions):
            raise ValueError(
                f"actions {[state['action'], current]} of a gate with {known.stop} scales"
            )
        if not isinstance(reward, float | NoneType):
            raise ValueError(f"mean reward {reward!r}")
        self.network.load_state_dict(state["network"])
        load_state(self.optimizer, state["optimizer"])
        self.action, self._current = state["action"], current
        self.mean_reward = reward
        self.generator.set_state(state["generator"].cpu())
