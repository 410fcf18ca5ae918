"""Packages that only some keys and some models of RecBole need: a line says which is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import one_line

_OWN = {"recbole", "recbole_cierec", "dataset_converters"}
PIP_NAMES = {  # where a package is installed by another name than it is imported by
    "PIL": "pillow",
    "community": "python-louvain",
    "faiss": "faiss-cpu",
    "kmeans_pytorch": "kmeans-pytorch",
    "torch_geometric": "torch-geometric",
    "torch_scatter": "torch-scatter",
    "yaml": "pyyaml",
}


def lacking(error: ImportError) -> str | None:
    """What to install after a failed import.

    Args:
        error: What the import raised.

    Returns:
        A line; None where the module is of RecBole or of this project, which is a fault.
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
    """Within, a package that is missing is one line.

    Args:
        needed_by: The subject of that line: what is being made or run.

    Raises:
        ConfigError: In place of an ImportError of a package of neither RecBole nor this project.
    """
    try:
        yield
    except ImportError as error:
        line = lacking(error)
        if line is None:
            raise
        raise ConfigError(f"{needed_by} {line}") from error


def require(module: str, attribute: str, needed_by: str) -> None:
    """Import a package now, before any work is done that would be lost without it.

    Args:
        module: The package.
        attribute: A name that it must have: a folder of the same name, such as the one that wandb
            writes its runs to, can be imported as well.
        needed_by: What needs it, for the message.

    Raises:
        ConfigError: It is missing, or broken.
    """
    try:
        with named_where_missing(needed_by):
            found = import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # whatever a half-installed package runs into
        words = one_line(f"{type(error).__name__}: {error}")
        line = lacking(ImportError(words, name=module))
        raise ConfigError(f"{needed_by} {line}") from error
    if not hasattr(found, attribute):
        places = ", ".join(getattr(found, "__path__", ())) or "a file of that name"
        raise ConfigError(
            f"{needed_by} {lacking(ModuleNotFoundError(name=module))} ({places} is taken for it)"
        )
