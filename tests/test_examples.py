"""The notebooks in examples/ run, and their committed outputs are what a run shows.

``UPDATE_EXAMPLES=1 pytest tests/test_examples.py`` writes the outputs into the notebooks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 300_000
# Folders of a machine and of its users, and where a traceback would point.
_PLACE = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|usr|var|opt|mnt|work|Users)/|\b[A-Z]:\\\\|site-packages"
)

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an sdist without examples")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The working folder of all notebooks: demo data and features are made once."""
    return tmp_path_factory.mktemp("examples")


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode) -> list[list[list[str]]]:
    """The kinds of each cell's outputs; stderr is left out, where warnings of packages vary."""
    return [
        [
            sorted(output.get("data", {})) or [output.output_type]
            for output in cell.outputs
            if output.get("name") != "stderr"
        ]
        for cell in code_cells(notebook)
    ]


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Join the pieces of a stream, and drop the versions of this machine."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in code_cells(notebook):
        joined: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            name = output.get("name")
            if name and joined and joined[-1].get("name") == name:
                joined[-1]["text"] += output.text
            else:
                joined.append(output)
        cell.outputs = joined


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_and_shows_what_is_committed(path, folder, monkeypatch):
    # The settings and kernels of the person who runs the tests stay out.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder / name))
    notebook = nbformat.read(path, as_version=4)
    committed = shown(notebook)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources=place
    ).execute()
    tidy(notebook)
    if "UPDATE_EXAMPLES" in os.environ:
        nbformat.write(notebook, path)
    else:
        assert shown(notebook) == committed


@each_notebook
def test_a_committed_notebook_is_valid_small_and_was_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_a_committed_notebook_names_no_folder_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not _PLACE.search(re.sub(r'"image/\w+": "[^"]*"', "", text))


@each_notebook
def test_links_of_a_notebook_lead_to_files(path):
    text = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type != "code"
    )
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (EXAMPLES / link).exists()] == []


@pytest.mark.parametrize("page", ["docs/examples.md", "examples/README.md"])
def test_the_list_of_examples_names_every_notebook(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"(\w+\.ipynb)\)", text) == [path.name for path in NOTEBOOKS]
