"""What this package replaces of RecBole by subclasses, why, and until when.

The table imports neither RecBole nor torch nor numpy, any of which may be broken. The subclasses
are in the subpackages that use them (``config/compat.py``, ``data/compat.py``, ...) with the full
reasons; ``tests/compat/test_patches.py`` keeps both consistent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patch:
    """One work-around.

    Args:
        target: Its place in this package, as ``module:name``.
        places: The lines of RecBole 1.2.1 that it replaces, as ``file:lines``.
        breaks: What happens without it.
        until: What must change in RecBole before it can be removed.
        package: The package that broke RecBole; empty: RecBole is broken with any packages.
        since: The first version that broke it.
    """

    target: str
    places: tuple[str, ...]
    breaks: str
    until: str
    package: str = ""
    since: str = ""


_SCIPY = {
    "until": "RecBole builds these matrices in another way",
    "package": "scipy",
    "since": "1.13",
}
PATCHES = (
    Patch(
        "compat.numpy_names:numpy_aliases",
        (
            "evaluator/metrics.py:90, 128, 131, 190, 196, 287",
            "data/interaction.py:31",
            "data/dataset/dataset.py:652",
        ),
        "np.float and other names that numpy no longer has",
        "RecBole no longer uses such names",
        "numpy",
        "1.24",
    ),
    Patch(
        "config.compat:ConfigCompat.compatibility_settings",
        ("config/configurator.py:630, 632 and 635",),
        "every Config() raises AttributeError",
        "RecBole's own method runs on numpy 2",
        "numpy",
        "2.0",
    ),
    Patch(
        "config.compat:ConfigCompat._init_device",
        ("config/configurator.py:476-516",),
        "several processes on CPUs fail; use_gpu: False is ignored",
        "RecBole picks the backend by the device and honours ``use_gpu``",
    ),
    Patch(
        "data.compat:FeatureFrame",
        (
            "data/dataset/dataset.py:712, 792, 809, 1217",
            "kg_dataset.py:316",
            "sequential_dataset.py:165",
        ),
        "any column of sequences raises ValueError",
        "RecBole uses ``map(len)``",
        "pandas",
        "3.0",
    ),
    Patch(
        "data.compat:FeatureFrame.sort_values",
        ("data/dataset/dataset.py:853",),
        "rm_dup_inter reorders interactions of equal times, silently",
        "RecBole sorts stably",
    ),
    Patch(
        "data.compat:DatasetCompat._load_feat",
        ("data/dataset/dataset.py:501", "dataset.py:486"),
        "an empty cell of a sequence raises AttributeError",
        "RecBole fixes both",
        "pandas",
        "3.0",
    ),
    Patch(
        "data.compat:DatasetCompat._fill_nan",
        ("data/dataset/dataset.py:648 and 650",),
        "missing tokens and numbers are not filled, silently",
        "RecBole assigns the filled column",
        "pandas",
        "3.0",
    ),
    Patch(
        "trainer.compat:TrainerCompat.__init__",
        ("trainer/trainer.py:60-64", "utils/utils.py:51"),
        "several processes on CPUs fail, or race for the checkpoint folder",
        "RecBole leaves out ``device_ids`` on the CPU, and passes ``exist_ok``",
    ),
    Patch(
        "evaluation.compat:CollectorCompat",
        ("evaluator/collector.py:226-227",),
        "ItemCoverage, GiniIndex and two more metrics raise AttributeError",
        "RecBole moves tensors only",
        "recbole",
        "1.2.1",
    ),
    Patch(
        "compat.recbole_models:_SymmetricMatrix",
        ("lightgcn.py:111", "ngcf.py:110", "ncl.py:131", "gcmc.py:174"),
        "LightGCN, NGCF, NCL and GCMC raise AttributeError",
        **_SCIPY,
    ),
    Patch(
        "compat.recbole_models:_Laplacian",
        ("spectralcf.py:123",),
        "SpectralCF raises AttributeError",
        **_SCIPY,
    ),
    Patch(
        "compat.recbole_models:_KnowledgeMatrix",
        ("kgin.py:356", "mcclk.py:425"),
        "KGIN and MCCLK raise AttributeError",
        **_SCIPY,
    ),
    Patch(
        "compat.recbole_models:_UsersLeft",
        ("line.py:83",),
        "LINE never stops drawing where every user has an item",
        "RecBole checks before it draws",
    ),
    Patch(
        "compat.recbole_models:_Counts",
        ("pop.py:39",),
        "Pop counts an item once a batch, and negatives too",
        "RecBole counts positives",
    ),
    Patch(
        "compat.recbole_models:_Staged",
        ("s3rec.py:120",),
        "S3Rec and RaCT start from any file, and RaCT logs a traceback",
        "RecBole fixes its message; the checks stay ours",
    ),
    Patch(
        "compat.warnings:KNOWN_WARNINGS",
        ("trainer/trainer.py:235",),
        "a warning at every run",
        "RecBole takes the new name",
        "torch",
        "2.4",
    ),
    Patch(
        "compat.warnings:KNOWN_WARNINGS",
        ("data/dataset/dataset.py:2202",),
        "a warning at every run",
        "RecBole copies the array",
        "pandas",
        "3.0",
    ),
)
