"""Imports packages and looks for devices, one JSON line on stdout for each thing it finds.

:mod:`recbole_cierec.cli.doctor` runs this file in a separate process, since importing a
package built for another machine may crash it. It imports only the standard library and what it is
asked to.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

MARK = "doctor: "  # packages may print other lines


def report(**facts: object) -> None:
    """Print one finding."""
    print(MARK + json.dumps(facts), flush=True)


def words_of(error: BaseException, limit: int = 200) -> str:
    """An error on one line; long texts, such as numpy's, are cut."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def try_import(module: str) -> None:
    """Report that a module is being tried, import it, and report the result."""
    report(trying=module)
    try:
        import_module(module)
    except BaseException as error:  # any error is the package's, and reported
        report(module=module, error=words_of(error))
    else:
        report(module=module, error=None)


def gpus_of(torch: Any) -> tuple[list[str], str]:
    """GPUs with their memory; if there are none, the reason."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            return [], "this torch is built without CUDA"
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return [], words_of(error, 100)
        return [], "no device is visible"
    found = []
    for number in range(torch.cuda.device_count()):
        kind = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(f"{kind.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    return found, ""


def devices() -> None:
    """Report what torch sees."""
    import torch

    report(trying="GPUs")  # a driver can hang
    report(cuda=torch.version.cuda or torch.version.hip or "")
    report(torch_threads=[torch.get_num_threads(), torch.get_num_interop_threads()])
    names, reason = gpus_of(torch)
    report(gpus=names, no_gpu=reason)


def memory() -> None:
    """Report the free memory, within the limit of a container."""
    import torch

    from recbole_cierec.vision.row_source import free_memory

    report(free_memory=free_memory(torch.device("cpu")))


def libraries() -> None:
    """Report the loaded libraries for threads and linear algebra."""
    from threadpoolctl import threadpool_info

    for library in threadpool_info():
        name = " ".join(filter(None, (library["internal_api"], library["version"])))
        owner = library["filepath"].rpartition("site-packages/")[2].split("/")[0]
        report(
            library=f"{library['user_api']}: {name}, {owner or 'system'}",
            threads=library["num_threads"],
        )


def main(path: list[str], modules: list[str]) -> None:
    """Import all modules, then look for devices.

    Args:
        path: ``sys.path`` of the calling process.
        modules: Their names.
    """
    sys.path[:] = path
    for module in modules:
        try_import(module)
    for look in (devices, memory, libraries) if "torch" in sys.modules else ():
        try:
            look()
        except Exception as error:  # the imports have been reported already
            report(look=look.__name__, error=words_of(error))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
