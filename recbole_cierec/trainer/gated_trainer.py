"""Trainer of the models with gradient-regularization gates (CIERec, Eq. 6), or with a rule of
multi-task learning in their place (:mod:`recbole_cierec.trainer.gradient_balance`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from recbole_cierec.distributed.world import world
from recbole_cierec.errors import ConfigError
from recbole_cierec.trainer.bandit_gate import BanditGate
from recbole_cierec.trainer.deferred_loss import LossFunction, Pending, Totals, receive, send
from recbole_cierec.trainer.gradient_balance import BRANCHES, JOINT_MODES, Balance, balance
from recbole_cierec.trainer.gradient_gate import GradientGate
from recbole_cierec.trainer.trainer import TrainerMixin


class GatedTrainer(TrainerMixin, Trainer):
    """Picks the gates' scales before a batch, and rewards the previous choice after it."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.gates: dict[str, GradientGate | BanditGate] = {}
        self.balance: Balance | None = None
        self._fixed: dict[str, float] = {}
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._reward: Pending | None = None  # the branches' losses of the last batch
        mode = config["gr_mode"] if getattr(model, "use_gradient_gate", False) else "off"
        if mode == "fixed":
            self._fixed = dict(zip(BRANCHES, config["gr_fixed_scales"], strict=True))
        elif mode in JOINT_MODES:
            self._set_balance(mode)
        elif mode != "off":
            self._set_gates(mode)
        if mode != "off" and not model.encoder.trainable:
            self.logger.warning(
                "gr_mode has no effect with encoder_training: frozen, as no parameter lies below "
                "e_i; use adapter or finetune"
            )

    def _set_gates(self, mode: str) -> None:
        scales, rate, seed = (self.config[k] for k in ("gr_scales", "gr_learning_rate", "seed"))
        for k, name in enumerate(BRANCHES):
            self.gates[name] = (
                BanditGate(scales)
                if mode == "bandit"
                else GradientGate(scales, mode, rate, seed + k)
            )
        optimizers = {f"gate_{name}": gate.optimizer for name, gate in self.gates.items()}
        self._decay({name: one for name, one in optimizers.items() if one is not None})

    def _set_balance(self, mode: str) -> None:
        rule = balance(mode, self.config["gr_alpha"], self.config["gr_learning_rate"])
        if rule.one_process and world()[1] > 1:
            raise ConfigError(
                f"gr_mode: {mode} reads the gradients of the whole batch, which no process of "
                "several has; train in one process, without --nproc"
            )
        if rule.optimizer is not None:
            self._decay({"gate_balance": rule.optimizer})
        self.balance = rule

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        if loss_func is None:  # not in PiNet's phase 1
            if self._fixed:
                self.model.gradient_scales = self._fixed
            loss_func = self._gated_loss if self.gates or self.balance else None
        losses = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self._log_gates(epoch_idx)
        return losses

    def _gated_loss(self, interaction: Interaction) -> torch.Tensor:
        self._settle()
        for name, gate in self.gates.items():
            self.model.gradient_scales[name] = gate.choose()
        if self.balance is not None:
            self.model.join_gradients = self.balance.join
        loss = self.model.calculate_loss(interaction)
        self._reward = send(self._reward_losses(loss), self._at)
        return loss

    def _reward_losses(self, loss: torch.Tensor) -> torch.Tensor:
        """L_v and L_s [2]: each branch's own BPR loss, or the common one (``gr_reward``)."""
        common = self.config["gr_reward"] == "common"
        losses = torch.stack(
            [loss.detach() if common else self.model.branch_losses[name] for name in BRANCHES]
        )
        if self._group is not None:  # one decision for all processes
            losses = self._group.mean(losses * self._group.weight)
        return losses

    def _settle(self) -> None:
        """Let the gates learn from the last batch; its backward pass did not wait for them."""
        if self._reward is None:
            return
        losses, self._reward = receive(self._reward).tolist(), None
        by_branch = zip(BRANCHES, losses, strict=True)
        logged = (
            {name: self.gates[name].learn(value) for name, value in by_branch}
            if self.balance is None
            else self.balance.learn(losses)
        )
        for name, cells in logged.items():
            for what, number in cells.items():
                self._seen[f"{name}/{what}"].append(number)

    def _log_gates(self, epoch_idx: int) -> None:
        """Means over the epoch: the scale chosen, its reward J and its probability (Q), or what a
        rule reports."""
        means = {key: sum(values) / len(values) for key, values in self._seen.items()}
        for key, value in means.items():
            self.tensorboard.add_scalar(f"gradient_gate/{key}", value, epoch_idx)
        for name in BRANCHES if means else ():
            cells: dict[str, Any] = {
                key.removeprefix(f"{name}/"): value
                for key, value in means.items()
                if key.startswith(f"{name}/")
            }
            if name in self.gates:
                chosen = Counter(self._seen[f"{name}/scale"])
                cells["actions"] = {scale: chosen[scale] for scale in self.gates[name].scales}
            self.history.note(epoch_idx, gates={name: cells})
        if means:
            text = ", ".join(f"{key} {value:.4f}" for key, value in means.items())
            self.logger.info(f"epoch {epoch_idx} gradient gates [{text}]")
        self._seen.clear()

    def extra_state(self) -> dict[str, Any]:
        if self.balance is not None:
            return {"balance": self.balance.state_dict()}
        return {name: gate.state_dict() for name, gate in self.gates.items()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        for name, gate in self.gates.items():
            gate.load_state_dict(state[name])
        if self.balance is not None:
            self.balance.load_state_dict(state["balance"])
