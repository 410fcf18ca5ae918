"""Ready-made features of items, given as .npy files by modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recbole_cierec.errors import DataError
from recbole_cierec.vision.feature_files import open_npy

from .workspace import Workspace

MODALITIES = ("image", "text", "audio", "video")


def add_features(space: Workspace, name: str, files: Mapping[str, Path]) -> int:
    """Have features written for the items whose ``feature_row`` is set, and named in NAME.yaml.

    Args:
        space: The workspace.
        name: Of the data set.
        files: A .npy file [rows, D] for each modality.

    Returns:
        The number of rows of the longest file; 0 without files.

    Raises:
        DataError: A file cannot be read or has another shape.
    """
    counts = [0]
    for path in files.values():
        space.inputs.append(path)
        array = open_npy(path, "features")
        if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: holds {array.dtype} {array.shape} instead of numbers [items, features]"
            )
        counts.append(len(array))
    space.features = dict(files)
    if files:
        space.settings["features"] = {key: f"{name}.{key}.npy" for key in files}
    return max(counts)
