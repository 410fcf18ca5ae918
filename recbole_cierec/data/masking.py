"""RecBole's masking of sequences (BERT4Rec), which draws one negative per masked item."""

from __future__ import annotations

from collections.abc import Sequence

from recbole.data.transform import MaskItemSequence

from recbole_cierec.errors import DataError

PADDING_ITEM = 0


class MaskSequence(MaskItemSequence):
    """The same draws, but no endless loop for a sequence that holds every item.

    RecBole draws until an item is not in the sequence (data/transform.py:69).
    """

    def _neg_sample(self, item_set: Sequence[int], n_items: int) -> int:
        n_real = n_items - 1
        if len(item_set) < n_real or len(set(item_set) - {PADDING_ITEM}) < n_real:
            return super()._neg_sample(item_set, n_items)
        if self.config["loss_type"] == "CE":
            return PADDING_ITEM  # this loss reads no negatives
        raise DataError(
            f"{self.config['dataset']}: a sequence holds all {n_real} items, so no negative is "
            "left for it; lower MAX_ITEM_LIST_LENGTH, or set loss_type: CE"
        )
