"""Keys that several models of this package have.

The defaults of COMMON are also those of a model outside the package. ``properties/model/NAME.yaml``
has the values for a model of the package, which may differ. The keys of models are declared in this
folder and not on the classes so that their values can be checked for every model of a comparison
without importing any of them.
"""

from __future__ import annotations

from recbole_cierec.config.schema.key import Key, Role
from recbole_cierec.config.schema.parts import numbers

COMMON = (  # every subclass of VisualRecommender
    Key(
        "embedding_size",
        int,
        "d: length of each user and item vector.",
        default=64,
        low=1,
        high=2**16,
    ),
    Key("init_std", float, "Standard deviation of the initial id vectors.", default=0.01, low=0),
    Key(
        "learner",
        str,
        "Optimizer.",
        role=Role.TRAINING,
        default="adagrad",
        choices=("adam", "sgd", "adagrad", "rmsprop", "sparse_adam"),
    ),
    Key("learning_rate", float, "Learning rate.", role=Role.TRAINING, default=0.2, low=0),
    Key(
        "train_batch_size",
        int,
        "Training examples in a batch.",
        role=Role.TRAINING,
        default=1024,
        low=1,
    ),
    Key(
        "reg_weight",
        float,
        "L2 on the vectors that enter the score, and item biases, per pair.",
        default=0.02,
        low=0,
    ),
    Key(
        "content_reg_weight",
        float,
        "L2 on the weights of the content path, whole tensors.",
        default=0.0,
        low=0,
    ),
    Key(
        "content_init_gain",
        float,
        "Standard deviation of the initial content outputs, for features of length 1.",
        default=0.1,
        low=0,
    ),
)

SHARED = (  # several models
    Key("backbone", str, "Eq. 8: MF or VBPR.", default="MF", choices=("MF", "VBPR")),
    Key(
        "fusion",
        str,
        "Eq. 7: mlp is the paper's; sum or gated are simpler.",
        default="mlp",
        choices=("mlp", "sum", "gated"),
    ),
    Key(
        "fusion_bias",
        float,
        "Bias of fusion mlp at the start; a positive one keeps LeakyReLU linear at first.",
        default=1.0,
        low=0,
    ),
    Key(
        "content_projection",
        str,
        "VBPR backbone: linear compares a_u with E c_i; none with c_i itself, a_u as long as e_i.",
        default="linear",
        choices=("linear", "none"),
    ),
    Key(
        "privileged_dropout",
        float,
        "Share of items whose annotation is hidden in a training batch.",
        default=0.5,
        low=0,
        high=1,
    ),
    Key(
        "annotation_at_inference",
        bool,
        "Whether annotations are read when ranking (False: privileged, training only).",
        default=False,
    ),
    Key("use_ids", bool, "Whether the vectors include ids.", default=True),
    Key("use_image", bool, "Whether the item content includes the picture.", default=True),
    Key("temperature", float, "Similarities are divided by it.", default=1.0, low=0.001),
    Key(
        "use_annotations",
        bool,
        "Whether the item content includes the mean vector of the annotation tokens.",
        default=False,
    ),
    Key("attention_size", int, "Width of the attention networks.", default=64, low=1, high=2**16),
    Key("dropout_prob", float, "Dropout of the hidden layer.", default=0.5, low=0, high=1),
    Key("adv_eps", float, "Length of each row's perturbation.", default=0.5, low=0),
    Key("adv_weight", float, "Weight of the perturbed loss.", default=1.0, low=0),
    # Gates and gradient gates
    Key(
        "gate_activation",
        str,
        "Activation of the gates: linear or sigmoid.",
        default="linear",
        choices=("linear", "sigmoid"),
    ),
    Key(
        "gate_learning_rate",
        float,
        "Learning rate of the feature gates, whose D x D maps overfit at larger ones.",
        role=Role.TRAINING,
        default=0.0001,
        low=0,
    ),
    Key(
        "gr_mode",
        str,
        "Gradient gates (Eq. 6): paper, reinforce (sampled, reward against its mean), bandit "
        "(UCB1), gradnorm, pcgrad, uncertainty, fixed or off.",
        default="paper",
        choices=(
            *("paper", "reinforce", "bandit", "gradnorm", "pcgrad", "uncertainty"),
            *("fixed", "off"),
        ),
    ),
    Key(
        "gr_scales",
        list,
        "Actions of the gradient gates: factors on the gradient of a branch.",
        default=[0.2, 0.4, 0.6, 0.8, 1.0],
        check=numbers(),
    ),
    Key(
        "gr_reward",
        str,
        "Loss of the reward: branch (each branch's own) or common.",
        default="branch",
        choices=("branch", "common"),
    ),
    Key("gr_learning_rate", float, "Rate of the gradient gates (Adam).", default=0.001, low=0),
    Key(
        "gr_alpha",
        float,
        "For gr_mode gradnorm: how strongly a branch that learns slowly is favoured.",
        default=1.5,
        low=0,
    ),
    Key(
        "gr_fixed_scales",
        list,
        "For gr_mode fixed: factors of the first and the second branch.",
        default=[1.0, 1.0],
        check=numbers(2),
    ),
    # Models over graphs
    Key(
        "neighbours_count",
        int,
        "k: nearest items in the graphs of similar items.",
        default=10,
        low=1,
        high=1000,
    ),
    Key(
        "content_layers",
        int,
        "Layers of the graphs of similar items.",
        default=1,
        low=0,
        high=1000,
    ),
    Key(
        "id_layers",
        int,
        "Layers of the interaction graph (LightGCN).",
        default=2,
        low=0,
        high=1000,
    ),
    Key(
        "align_weight",
        float,
        "Weight of the alignment of content and id vectors (InfoNCE).",
        default=0.01,
        low=0,
    ),
    Key("align_temperature", float, "Temperature of that alignment.", default=0.2, low=0.001),
    # Models that start from trained weights
    Key(
        "pretrained",
        (str, None),
        "Checkpoint to take pretrained weights from; null: they are pretrained first, by "
        "the same command.",
        default=None,
        path="file",
    ),
    Key(
        "pretrain",
        (dict, None),
        "Keys of the model that is trained first, as {learning_rate: 0.1}; keys in the "
        "main model's YAML do not affect it.",
        default={},
    ),
    Key(
        "pretrain_epochs",
        int,
        "Epochs of phase 1; epochs counts those after it.",
        default=10,
        low=0,
    ),
)

KEYS = (*COMMON, *SHARED)
