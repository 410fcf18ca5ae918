"""Keys of the items' content: pictures, annotations and the visual encoder."""

from __future__ import annotations

from functools import partial

from recbole_cierec.config.schema.key import Key, Role
from recbole_cierec.config.schema.parts import modality_files

key = partial(Key, role=Role.CONTENT)

KEYS = (
    key(
        "image_path_field",
        str,
        "The column of NAME.item that holds the path of the picture.",
        not_empty=True,
    ),
    key(
        "annotations_field",
        str,
        "The column of NAME.item that holds the annotation tokens.",
        not_empty=True,
    ),
    Key(
        "image_dir",
        (str, None),
        "The folder that picture paths start from; null: the data set's folder.",
        role=Role.PLACE,
        path="folder",
        in_use=True,
        exists=True,
    ),
    Key(
        "cache_dir",
        str,
        "The folder of picture stores and features.",
        role=Role.PLACE,
        path="folder",
        in_use=True,
    ),
    key("image_size", int, "Width and height of a picture in pixels.", low=1, high=2**14),
    key(
        "image_resize",
        str,
        "How a picture is made square: squash, crop or pad.",
        choices=("squash", "crop", "pad"),
    ),
    key(
        "image_decode",
        str,
        "exact, or fast: JPEGs are decoded about twice as fast, to pixel values that differ by "
        "about 1 of 255.",
        choices=("exact", "fast"),
    ),
    key(
        "bad_image",
        str,
        "What an unreadable picture is: an error, no picture (skip) or a grey one (blank).",
        choices=("error", "skip", "blank"),
    ),
    key(
        "max_image_pixels",
        int,
        "Larger pictures are refused before they are decoded; values above Pillow's own "
        "limit (the default) have no effect.",
        low=1,
    ),
    # Visual encoder
    key(
        "visual_encoder",
        str,
        "A classification network of torchvision, timm/NAME, or package.module:Class.",
    ),
    key(
        "encoder_weights",
        str,
        "DEFAULT (the library's), random, or the path of a .pth or .safetensors file.",
        path="file",
        exists=True,
        words=("DEFAULT", "random"),
        in_use=True,
    ),
    key(
        "encoder_training",
        str,
        "frozen features, features with a trained linear adapter, or finetune the network.",
        choices=("frozen", "adapter", "finetune"),
    ),
    key(
        "content_learning_rate",
        float,
        "Learning rate of the maps of content to d, gates and fusion.",
        low=0,
    ),
    key(
        "encoder_learning_rate",
        float,
        "The learning rate of the encoder: of the network with finetune, of the map with adapter.",
        low=0,
    ),
    key(
        "encoder_batch_size",
        int,
        "Pictures in one batch of the encoder.",
        low=1,
        high=2**16,
        in_use=True,
    ),
    key(
        "encoder_precision",
        str,
        "float32, or bfloat16, faster on GPUs and on CPUs with the instructions: of the network "
        "with finetune; in training, of the adapter and of CIERec's gates.",
        choices=("float32", "bfloat16"),
    ),
    key(
        "encoder_compile",
        bool,
        "With finetune: whether to compile the network with torch.compile; takes minutes once.",
    ),
    key(
        "encoder_memory",
        (int, None),
        "With finetune: MiB of a batch's backward pass; other pictures pass the network "
        "twice; null: 1/4 of the free main memory, 1/2 of a GPU's.",
        low=0,
    ),
    key(
        "encoder_freeze_until",
        (str, None),
        "With finetune: the network's layers up to this one (layer3, features.14) are "
        "frozen; null: none.",
    ),
    key(
        "encoder_stage_cache",
        str,
        "Output of the frozen layers is computed once and kept in cache_dir as float16 or"
        " float32; none: computed at each step.",
        choices=("float16", "float32", "none"),
    ),
    key(
        "augmentation",
        str,
        "With finetune: training pictures as they are (none), mirrored at random (flip), "
        "or also cropped (crop_flip).",
        choices=("none", "flip", "crop_flip"),
    ),
    key(
        "picture_store_device",
        str,
        "With finetune: pictures are read from the disk (host) or copied to the GPU once "
        "(device); auto: device if they take at most half of its free memory.",
        choices=("auto", "host", "device"),
        in_use=True,
    ),
    key(
        "features_file",
        (str, None),
        "Ready-made features (.npy): row k for the k-th data line of NAME.item.",
        path="file",
        exists=True,
        in_use=True,
    ),
    key(
        "features",
        (dict, None),
        "Ready-made features of several modalities, {image: F.npy, text: G.npy}: rows as named by"
        " F.ids.txt, or as in NAME.item.",
        check=modality_files,
        searched=False,
        in_use=True,
    ),
    key(
        "feature_norm",
        str,
        "Normalisation of features: none, l2, center or standard.",
        choices=("none", "l2", "center", "standard"),
    ),
    key(
        "feature_dim",
        (int, None),
        "Number of principal components of the features to keep; null: all.",
        low=1,
    ),
    key(
        "max_annotation_tokens",
        int,
        "Maximum number of annotation tokens kept of an item, in the order of the file.",
        low=1,
    ),
)
