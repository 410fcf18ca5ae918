"""Keys that one model of this package has; the defaults repeat ``properties/model/NAME.yaml``."""

from __future__ import annotations

from recbole_cierec.config.schema.key import Key, Role

OF_ONE_MODEL: dict[str, tuple[Key, ...]] = {
    "CIERec": (
        Key(
            "lstm_input",
            str,
            "Eq. 5: steps reads c_i and then the annotation; concat reads both in one step.",
            default="steps",
            choices=("steps", "concat"),
        ),
        Key(
            "annotation_encoder",
            str,
            "s^_i of Eq. 5: mean of the token vectors, or sequence (one LSTM step per token).",
            default="mean",
            choices=("mean", "sequence"),
        ),
        Key(
            "token_learning_rate",
            (float, None),
            "Learning rate of the token vectors; null: learning_rate, as for ids.",
            role=Role.TRAINING,
            default=None,
            low=0,
        ),
        Key(
            "guidance_weight",
            float,
            "Weight of a loss by which c_i predicts its annotation's tokens, in training only.",
            default=0.1,
            low=0,
        ),
        Key(
            "alignment_weight",
            float,
            "Weight of the squared distance between s_i without and with annotation.",
            default=0.0,
            low=0,
        ),
    ),
    "AMF": (
        Key(
            "perturb",
            str,
            "Which vectors are perturbed: both (users and items, APR) or item (as CIERec "
            "describes it).",
            default="both",
            choices=("both", "item"),
        ),
    ),
    "AMR": (
        Key(
            "adv_type",
            str,
            "Direction of the perturbation: grad (along the gradient), rand (random) or both.",
            default="grad",
            choices=("grad", "rand", "both"),
        ),
    ),
    "AlignRec": (
        Key(
            "content_size",
            int,
            "w: numbers in a content vector m_i; a multiple of attention_heads.",
            default=64,
            low=1,
            high=2**16,
        ),
        Key(
            "image_tokens",
            int,
            "Tokens into which a picture's features are unfolded.",
            default=4,
            low=1,
            high=1000,
        ),
        Key(
            "attention_blocks",
            int,
            "Attention blocks of the content encoder.",
            default=1,
            low=0,
            high=1000,
        ),
        Key("attention_heads", int, "Heads of each attention block.", default=4, low=1, high=1000),
        Key(
            "mask_share",
            float,
            "Phase 1: share of tokens, and of pictures, that are masked and predicted.",
            default=0.3,
            low=0,
            high=1,
        ),
        Key(
            "image_weight",
            float,
            "Phase 1: weight of the squared distance to a masked picture's features, relative"
            " to the cross-entropy of tokens.",
            default=1.0,
            low=0,
        ),
        Key("pretrain_batch_size", int, "Items in a batch of phase 1.", default=128, low=1),
        Key("pretrain_learning_rate", float, "Learning rate of phase 1.", default=0.001, low=0),
        Key(
            "cosine_weight",
            float,
            "Weight of the cosine alignment of users and items (UIA).",
            default=0.1,
            low=0,
        ),
        Key(
            "similarity_weight",
            float,
            "Weight of the distance between content parts' products and content cosines (REG).",
            default=0.1,
            low=0,
        ),
    ),
    "CLCRec": (
        Key(
            "contrastive_negatives",
            int,
            "n: negatives of each interaction.",
            default=128,
            low=1,
            high=2**16,
        ),
        Key(
            "contrastive_weight",
            float,
            "lambda: the share of the loss between id and content of an item; the rest is "
            "between users and items.",
            default=0.5,
            low=0,
            high=1,
        ),
        Key(
            "replaced_share",
            float,
            "rho: share of positions in the user loss where content replaces the id vector.",
            default=0.5,
            low=0,
            high=1,
        ),
        Key(
            "content_hidden_size",
            int,
            "Width of the hidden layer of the content encoder.",
            default=256,
            low=1,
            high=2**16,
        ),
    ),
    "ContentPrior": (
        Key(
            "use_history",
            bool,
            "Whether the user vector includes the mean of the history.",
            default=True,
        ),
        Key(
            "neighbour_weight",
            float,
            "lambda: weight of the mean of the neighbours' vectors; 0: no neighbours.",
            default=1.0,
            low=0,
        ),
        Key(
            "prior_weight",
            (float, None),
            "kappa: precision of the prior on the ids of a user or item with one interaction; "
            "null: 50 where pictures are the only content, else 500.",
            default=None,
            low=0,
        ),
        Key(
            "unseen_bias",
            float,
            "Bias of unseen items, as a share of the mean bias over interactions; 0: none.",
            default=1.0,
            low=0,
        ),
    ),
    "DeepStyle": (
        Key(
            "category_field",
            (str, None),
            "The token column of NAME.item that holds the category; null: the first "
            "annotation token.",
            default=None,
        ),
    ),
    "DropoutNet": (
        Key(
            "mlp_hidden_size",
            list,
            "Sizes of the hidden layers of both towers.",
            default=[200, 100],
        ),
        Key(
            "user_dropout",
            float,
            "Share of a batch's users whose preference vector is hidden.",
            default=0.5,
            low=0,
            high=1,
        ),
        Key(
            "item_dropout",
            float,
            "Share of a batch's items whose preference vector is hidden.",
            default=0.5,
            low=0,
            high=1,
        ),
        Key(
            "user_transform",
            int,
            "Users with at most this many training interactions get the mean vector of their "
            "items; 0: none.",
            default=0,
            low=0,
        ),
        Key(
            "target_pairs",
            str,
            "Items of the pairs: top (half of a user's own top, half random) or batch "
            "(RecBole's positive and negative).",
            default="top",
            choices=("top", "batch"),
        ),
        Key(
            "target_top",
            float,
            "Share of the items that counts as a user's top.",
            default=0.15,
            low=0,
            high=1,
        ),
        Key(
            "stage_model",
            str,
            "The model whose vectors are used: MF, or RecBole's BPR.",
            default="MF",
            choices=("MF", "BPR"),
        ),
    ),
    "FREEDOM": (
        Key(
            "picture_share",
            float,
            "s: the share of the picture graph in S; the rest is the annotations'.",
            default=0.1,
            low=0,
            high=1,
        ),
        Key(
            "edge_dropout",
            float,
            "Share of the interactions that each epoch's training graph leaves out.",
            default=0.8,
            low=0,
            high=1,
        ),
        Key(
            "content_loss_weight",
            float,
            "lambda: weight of the losses with W_m f_m as item vectors.",
            default=0.001,
            low=0,
        ),
    ),
    "HAFR_non_i": (
        Key(
            "non_i_reading",
            str,
            "information: no annotations at all; attention: their plain mean, also when ranking.",
            default="information",
            choices=("information", "attention"),
        ),
    ),
    "MF_Content": (
        Key(
            "id_dropout",
            float,
            "Share of items whose q_i and bias are hidden in a training batch.",
            default=0.3,
            low=0,
            high=1,
        ),
    ),
    "PiNet": (
        Key(
            "semantic_weight",
            float,
            "Weight of the annotations' loss relative to the recommendation's.",
            default=1.0,
            low=0,
        ),
        Key(
            "positive_weight",
            float,
            "Weight of present relative to absent tokens in the annotations' loss.",
            default=1.0,
            low=0,
        ),
        Key(
            "prior_frequency",
            bool,
            "Prior knowledge one: the logit of each token starts at its log odds.",
            default=True,
        ),
        Key(
            "word_vectors",
            (str, None),
            "Prior knowledge two: text file with a token and its numbers per line (GloVe), "
            "which initialise the tokens' rows; null: none.",
            default=None,
            path="file",
            exists=True,
        ),
    ),
    "VECF": (
        Key(
            "region_grid",
            int,
            "Rows and columns of a region map; larger maps are averaged down to it.",
            default=7,
            low=1,
            high=256,
        ),
        Key(
            "merge",
            str,
            "How q_i and the picture are merged: add (mean), mul (product) or concat (a linear map "
            "of both).",
            default="add",
            choices=("add", "mul", "concat"),
        ),
        Key(
            "scorer",
            str,
            "inner (comparable with the other models) or mlp (five sigmoid layers, the "
            "authors' default).",
            default="inner",
            choices=("inner", "mlp"),
        ),
        Key(
            "vecf_loss",
            str,
            "bpr: the common key loss decides; bce: cross-entropy of positive and negative, "
            "as the authors do.",
            default="bpr",
            choices=("bpr", "bce"),
        ),
        Key(
            "caption_weight",
            float,
            "Weight of generating the annotation tokens as text, in training; 0: annotations "
            "are not read.",
            default=0.0001,
            low=0,
        ),
    ),
}

KEYS = tuple(key for keys in OF_ONE_MODEL.values() for key in keys)
