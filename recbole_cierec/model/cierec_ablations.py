"""The steps of CIERec's ablation, Table III, each for both backbones.

CIERec_Base          the backbone on pictures: MF(Image) or VBPR (its row in Table III equals
                     theirs in Table II)
CIERec_CI            + cross-modal inference, no gates: s_i = LSTM(e_i), f_i = MLP(q_i || s_i)
CIERec_CI_TA         + the task-aware gates of Eq. 3 and 4: f_i = MLP(q_i || v_i || s_i)
CIERec_CI_TA_GR      + the gradient-regularization gates of Eq. 6
CIERec               + the annotations as privileged information in Eq. 5

All steps have the same settings in properties/model/; a file has more keys than the previous one
only for the component that its step adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.model.cierec import CIERec
from recbole_cierec.model.mf_image import MF_Image
from recbole_cierec.model.vbpr import VBPR

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class PictureVBPR(VBPR):
    """VBPR on pictures alone, as CIERec reads no features of other modalities."""

    reads_features = False


BASES = {"MF": MF_Image, "VBPR": PictureVBPR}


class CIERec_Base(VisualRecommender):
    """The backbone: the constructor returns an ``MF_Image`` or a ``PictureVBPR``."""

    unseen_items = "content"

    def __new__(cls, config: Config, dataset: VisualDataset) -> VisualRecommender:
        return BASES[config["backbone"]](config, dataset)


class CIERec_CI(CIERec):
    use_gates = use_gradient_gate = use_annotations = False


class CIERec_CI_TA(CIERec):
    use_gradient_gate = use_annotations = False


class CIERec_CI_TA_GR(CIERec):
    use_annotations = False
