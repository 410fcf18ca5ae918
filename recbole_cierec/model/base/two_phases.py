"""What a model states that trains in two phases, first a part and then the whole.

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

    # Beginnings of the names of all tensors that the first phase leaves behind; ``pretrained``
    # reads these from a checkpoint.
    pretrained_parts: tuple[str, ...] = ()

    def pretrain_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The loss of the first phase on a batch; its terms, if it has several."""
        raise NotImplementedError

    def pretrain_items(self) -> Tensor | None:
        """Items [n] whose shuffled batches make an epoch of the first phase.

        None: the training interactions, as in the second phase.
        """
        return None

    def pretrain_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the first phase's optimizer; by default all of the model's."""
        return self.parameter_groups()

    def end_pretraining(self) -> None:
        """Called once, between the phases. It may not draw random numbers."""
