"""Training reads everything that converters write: hostile ids, labels, titles and addresses."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from urllib.parse import unquote

import pytest
from recbole_cierec.dataset_converters.__main__ import run as run_converter

from recbole_cierec.config.config import Config
from recbole_cierec.data.atomic import read_atomic, validate_interactions
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.errors import DataError

PIECES = [
    "a",
    "B",
    "0",
    "é",
    "🎵",
    "%",
    "%41",
    "_",
    "'",
    '"',
    ",",
    "|",
    "\\",
    "/",
    "\u00a0",
    "\ufeff",
]
PIECES += [" ", "\t", "\n", "\r", "\r\n", "\x00", "\x1b[31m", "\x85", "\u2028", "\u200b", "\x7f"]
WHOLE = [
    "[PAD]",
    "[pad]",
    "NA",
    "nan",
    "null",
    "None",
    "0",
    "00",
    "1e5",
    "#N/A",
    "-",
    "'",
    "item_id",
]
WHOLE += ["user_id:token", "inf", "True", "[]", "<NA>", "https://p.example/1.jpg", "x" * 5000]


def texts(chance: random.Random, count: int, whole: list[str] = WHOLE) -> list[str]:
    made = ["".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(count)]
    return [*made, *whole]


def stripped(text: str) -> str:
    """Without invisible characters at its ends, which do not belong to an id."""
    before = None
    while before != text:
        before, text = text, text.strip().strip("\ufeff\u200b")
    return text


def rows(chance: random.Random) -> list[dict[str, str]]:
    users, items = texts(chance, 20), texts(chance, 40)
    address = ["https://p.example/a b.jpg", "http://p.example/\u00fc.png", "ftp://x", "", *items]
    return [
        {
            "user": user,
            "item": item,
            "time": chance.choice(["-1.5", "0", "1e14", "12345678901234567890", "1e300"]),
            "title": "".join(chance.choices(PIECES, k=4)),
            "labels": "|".join(chance.sample(items, 3)),
            "flag": chance.choice("01"),
            "picture": chance.choice(address),
        }
        for item in items
        for user in chance.sample(users, 3)
    ]


def as_csv(records: list[dict[str, str]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(records[0]))
    table.writeheader()
    # Not every version of Python accepts a NUL in a CSV file.
    table.writerows({key: cell.replace("\0", "") for key, cell in r.items()} for r in records)
    return text.getvalue()


def as_json(records: list[dict[str, str]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


WORDS = "--user-column user --item-column item --time-column time --annotation-columns labels flag"
WORDS += " --title-column title --image-column picture --max-bad-share 1 --pictures copy"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("seed", range(3))
def test_hostile_tables_are_read_back_as_they_were(in_tmp, form, seed):
    records = rows(random.Random(seed))
    path = Path(f"t.{form}")
    path.write_bytes((as_csv if form == "csv" else as_json)(records).encode())
    Path("pictures").mkdir()
    (Path("pictures") / "0.jpg").write_bytes(b"x")
    files = ["--interactions", str(path), "--items", str(path), "--images", "pictures"]
    run_converter(["table", *files, *WORDS.split(), "--min-match", "0", "--all-items"])
    folder = Path("dataset") / "table"

    table, _ = read_atomic(folder / "table.inter")
    validate_interactions(table, "user_id", "item_id", "timestamp", path=folder / "table.inter")
    clean = [
        {k: v.replace("\0", "") if form == "csv" else v for k, v in r.items()} for r in records
    ]
    pairs = {(stripped(r["user"]), stripped(r["item"])) for r in clean}
    pairs = {pair for pair in pairs if all(pair)}
    found = table[["user_id", "item_id"]].itertuples(index=False)
    assert {(unquote(user), unquote(item)) for user, item in found} == pairs
    items, _ = read_atomic(folder / "table.item")
    assert {unquote(item) for item in items.item_id} >= {item for _, item in pairs}
    assert items.item_id.is_unique

    keys = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "use_gpu": False}
    data = create_dataset(Config("MF_Semantics", "table", None, {**keys, "bad_image": "skip"}, {}))
    # The padding is one additional id of each; no real id is mistaken for it.
    assert data.item_num - 1 == len({item for _, item in pairs})
    assert data.user_num - 1 == len({user for user, _ in pairs})
    assert len(data.content.token_names) - 1 == len(
        {token for cell in items.annotations.dropna() for token in cell.split(" ")}
    )


def test_one_interaction_and_nothing_else_is_read_back(convert, write):
    made = convert("table", "--interactions", write("t.csv", "user_id,item_id\n[PAD],[PAD]\n"))
    assert made.rows() == [("%5BPAD%5D", "%5BPAD%5D")]
    names = sorted(path.name for path in made.folder.iterdir())
    assert names == ["conversion.json", "made.inter", "made.yaml"]


@pytest.mark.parametrize("when", ["infinity", "-infinity", "Infinity", "epoch"])
def test_no_time_is_written_that_training_refuses(convert, write, when):
    path = write("t.csv", f"user_id,item_id,t\na,1,5\nb,2,{when}\n")
    words = ["--interactions", path, "--time-column", "t", "--max-bad-share", "1"]
    table = convert("table", *words)
    validate_interactions(
        read_atomic(table.folder / "made.inter")[0], "user_id", "item_id", "timestamp"
    )


def test_a_split_that_loses_a_part_is_refused_since_training_asks_for_all(convert, write):
    head = "user_id,recipe_id,rating,dateLastModified"
    for split, rating in {"train": 5, "valid": 2, "test": 5}.items():
        write(f"core-data-{split}_rating.csv", f"{head}\n1,2,{rating},2010-08-25\n")
    recipes = "recipe_id,recipe_name,image_url,ingredients\n2,Soup,https://p.example/2.jpg,salt\n"
    words = ["allrecipes", "--folder", write("core-data_recipe.csv", recipes).parent]
    with pytest.raises(DataError, match="no interaction remains in the part valid of the split"):
        convert(*words, "--min-rating", "3")
    assert len(convert(*words, "--min-rating", "3", "--split", "merge").rows()) == 2
