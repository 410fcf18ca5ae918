"""The pages of docs/: generated parts are current, messages exist, and models have their page."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from recbole_cierec.__main__ import main
from recbole_cierec.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="an sdist without docs")


@pytest.fixture
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_keys_in_the_pages_of_models_are_current(generate):
    for path in (DOCS / "models").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert generate.model_page(text) == text, f"{path}: run python docs/generate.py"


def test_the_page_of_commands_is_current(generate):
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    made = generate.commands_page()
    if sys.version_info[:2] == (3, 11):  # argparse, which the converters use, varies
        assert made == text, "run python docs/generate.py"
    else:
        assert set(re.findall(r"--[\w-]+", made)) == set(re.findall(r"--[\w-]+", text))


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_page_with_its_equations_and_keys(name):
    ablation = name.startswith("CIERec_")
    page = DOCS / "models" / f"{'CIERec_ablations' if ablation else name}.md"
    text = page.read_text(encoding="utf-8")
    heads = re.findall(r"^## ([\w ]+)", text, re.M)
    assert {"Equations", "Results", "Keys"} <= set(heads)
    assert any(head.startswith("When to use") for head in heads)
    assert ablation or f"<!-- keys: {name} -->\n| key |" in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_from_outside_the_site_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


# -- messages ----------------------------------------------------------------------------------


def texts(node: ast.AST) -> str:
    """A literal as it can appear in a message, "\\0" for what is computed."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values)


@pytest.fixture(scope="module")
def messages() -> list[str]:
    found = []
    for folder in ("recbole_cierec", "dataset_converters"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr) or (
                    isinstance(node, ast.Constant) and isinstance(node.value, str)
                ):
                    found.append(texts(node))
    return found


def test_every_message_of_the_page_exists_in_the_source(messages):
    listed = re.findall(r"^\| `([^`]+)` \|", (DOCS / "errors.md").read_text("utf-8"), re.M)
    assert len(listed) > 70
    for message in listed:
        parts = [re.escape(part) for part in message.split("…") if part]
        pattern = re.compile(".*".join(parts), re.S)
        assert any(pattern.search(text) for text in messages), message


# -- your own data -----------------------------------------------------------------------------


def test_the_page_on_your_own_data_runs_and_prints_what_it_shows(in_tmp, caplog):
    text = (DOCS / "your-data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    exec(compile(code, "my_shop.py", "exec"), {"__name__": "page"})  # noqa: S102
    shown = re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)
    for name, head in zip(("mine.inter", "mine.item"), shown, strict=False):
        assert Path("dataset/mine", name).read_text().startswith(head)
    commands = re.findall(r"^python -m recbole_cierec (--model.*)$", text, re.M)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    output = "\n".join(record.getMessage() for record in caplog.records)
    for line in (line for block in shown[2:] for line in block.splitlines()):
        start = line.split("0.")[0].split("...")[0].split(", epoch")[0]
        assert start in output, line
    # Two runs of one model may have the same second in their names.
    runs = sorted(Path("saved").glob("*.users.npz"), key=lambda path: path.stat().st_mtime_ns)
    assert main(["compare", *map(str, runs[:2]), "--metrics=recall@10"]) == 0
    checkpoint = str(next(Path("saved").glob("VBPR-*.pth")))
    assert main(["recommend", checkpoint, "--topk=5", "--out=recs.csv"]) == 0
    assert len(Path("recs.csv").read_text().splitlines()) == 1 + 80 * 5
