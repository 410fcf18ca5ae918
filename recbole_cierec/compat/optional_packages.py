"""One clear line for a missing package that only some keys or models need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import one_line

_OWN = {"recbole", "recbole_cierec", "dataset_converters"}
PIP_NAMES = {  # import name -> pip name, where they differ
    "PIL": "pillow",
    "community": "python-louvain",
    "faiss": "faiss-cpu",
    "kmeans_pytorch": "kmeans-pytorch",
    "python_multipart": "python-multipart",
    "sklearn": "scikit-learn",
    "torch_geometric": "torch-geometric",
    "torch_scatter": "torch-scatter",
    "yaml": "pyyaml",
}


def lacking(error: ImportError) -> str | None:
    """What to install after a failed import.

    Returns:
        A line; None if the module belongs to RecBole or this project, which is a bug.
    """
    module = (error.name or "").split(".")[0]
    if not module or module in _OWN:
        return None
    package = PIP_NAMES.get(module, module)
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {package}, which is not installed: pip install {package}"
    return (
        f"needs the package {package}, which cannot be imported ({error}): "
        f"pip install --force-reinstall {package}"
    )


@contextmanager
def named_where_missing(needed_by: str) -> Iterator[None]:
    """Report a missing package in one line.

    Args:
        needed_by: The subject of that line: what is being made or run.

    Raises:
        ConfigError: Instead of the ImportError of a package other than RecBole and this project.
    """
    try:
        yield
    except ImportError as error:
        line = lacking(error)
        if line is None:
            raise
        raise ConfigError(f"{needed_by} {line}") from error


def require(module: str, attribute: str, needed_by: str) -> None:
    """Import a package before any work that would be lost without it.

    Args:
        module: The package.
        attribute: A name that it must have. A mere folder of the package's name, such as the one
            that wandb writes its runs to, can be imported as well.
        needed_by: What needs it, for the message.

    Raises:
        ConfigError: It is missing, or broken.
    """
    try:
        with named_where_missing(needed_by):
            found = import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # a half-installed package may raise anything
        words = one_line(f"{type(error).__name__}: {error}")
        line = lacking(ImportError(words, name=module))
        raise ConfigError(f"{needed_by} {line}") from error
    if not hasattr(found, attribute):
        places = ", ".join(getattr(found, "__path__", ())) or "a file of that name"
        raise ConfigError(
            f"{needed_by} {lacking(ModuleNotFoundError(name=module))} ({places} is taken for it)"
        )
