"""The methods of a model that trains in two phases: first a part, then the whole.

:class:`recbole_cierec.trainer.two_phase_trainer.TwoPhaseTrainer` calls these methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction

    from recbole_cierec.model.base.visual_recommender import VisualRecommender as _Base
else:
    _Base = object


class TwoPhases(_Base):
    """A mixin, before ``VisualRecommender`` among the base classes."""

    # Prefixes of the names of all tensors that the first phase sets; the key ``pretrained`` reads
    # these from a checkpoint.
    pretrained_parts: tuple[str, ...] = ()

    def pretrain_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The loss [] of the first phase on a batch, or its terms."""
        raise NotImplementedError

    def pretrain_items(self) -> Tensor | None:
        """Items [n] of an epoch of the first phase, shuffled into batches.

        None: the training interactions, as in the second phase.
        """
        return None

    def pretrain_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the first phase's optimizer; by default all."""
        return self.parameter_groups()

    def end_pretraining(self) -> None:
        """Called once between the phases. It must not draw random numbers."""
