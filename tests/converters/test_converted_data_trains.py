"""Converted data load and train by the same call as any other data set."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image
from recbole_cierec.dataset_converters.__main__ import run as run_converter

from recbole_cierec import recommend, run
from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.errors import UserError

KEYS = {
    "visual_encoder": "squeezenet1_1",
    "encoder_weights": "random",
    "image_size": 64,
    "embedding_size": 8,
    "train_batch_size": 256,
    "epochs": 1,
    "show_progress": False,
    "use_gpu": False,
}
N_USERS, N_ITEMS = 12, 20


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def interactions() -> list[tuple[int, int, int]]:
    chance = random.Random(5)
    rows = []
    for user in range(N_USERS):
        for when, item in enumerate(chance.sample(range(N_ITEMS), 10)):
            rows.append((user, item, 10 * when))
    return rows


def test_a_table_with_pictures_trains(in_tmp):
    lines = [f"u {user},i {item},{when}" for user, item, when in interactions()]
    Path("t.csv").write_text("\n".join(["user_id,item_id,time", *lines]))
    rows = [f"i {item},tag {item % 3}|all,{item}.png" for item in range(N_ITEMS)]
    Path("i.csv").write_text("\n".join(["item_id,tags,file", *rows]))
    for item in range(N_ITEMS - 1):  # the last picture is missing
        picture(Path("pictures") / f"{item}.png", item)
    words = "table --interactions t.csv --items i.csv --time-column time --annotation-columns tags"
    report = run_converter([*words.split(), *"--image-column file --images pictures".split()])
    assert (
        "pictures of --image-column that are not in pictures: 1 of 20, such as '19.png'" in report
    )
    result = run("CIERec", "table", config_dict=KEYS)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    log = Path(result["log_file"]).read_text(encoding="utf-8")
    assert "1 without picture" in log


def test_kept_columns_filter_lists(in_tmp):
    lines = [f"u{user},i{item},{when}" for user, item, when in interactions()]
    Path("t.csv").write_text("\n".join(["user_id,item_id,time", *lines]))
    rows = [f"i{item},{item}.5,{'red' if item % 2 else 'blue'}" for item in range(N_ITEMS)]
    Path("i.csv").write_text("\n".join(["item_id,price,colour", *rows]))
    words = "table --interactions t.csv --items i.csv --time-column time --columns price colour"
    run_converter(words.split())
    checkpoint = run("MF", "table", config_dict=KEYS)["checkpoint"]
    keys = {"topk": N_ITEMS, "with_seen": True}
    table = recommend(checkpoint, where="price<5 & colour=red", **keys)
    assert set(table["item"]) == {"i1", "i3"}


def test_allrecipes_trains_on_its_shipped_split(in_tmp):
    folder = Path("foodrecsys")
    for split, (low, high) in {"train": (0, 60), "valid": (60, 70), "test": (70, 100)}.items():
        lines = ["user_id,recipe_id,rating,dateLastModified"]
        for user, item, when in interactions():
            if low <= when < high:
                lines.append(f'{user},{item},5,"2010-01-01T00:00:{when // 2:02}\n"')
        folder.mkdir(exist_ok=True)
        (folder / f"core-data-{split}_rating.csv").write_text("\n".join(lines) + "\n")
    rows = ["recipe_id,recipe_name,image_url,ingredients,cooking_directions,nutritions"]
    for item in range(N_ITEMS):
        rows.append(f"{item},Recipe {item},https://p.example/{item}.jpg,eggs^salt,x,x")
        picture(folder / "core-data-images" / f"{item}.jpg", item)
    (folder / "core-data_recipe.csv").write_text("\n".join(rows) + "\n")
    run_converter(["allrecipes", "--folder", "foodrecsys"])
    result = run("MF_Semantics", "allrecipes", config_dict=KEYS)
    config = Config("MF_Semantics", "allrecipes", None, KEYS, {})
    parts = create_dataset(config).build()
    assert [len(part) for part in parts] == [6 * N_USERS, N_USERS, 3 * N_USERS]
    assert 0 <= result["test_result"]["recall@10"] <= 1


def test_hafrs_release_trains_on_its_features(in_tmp):
    for split, (low, high) in {"train": (0, 60), "valid": (60, 70), "test": (70, 100)}.items():
        lines = [f"{user}\t{item}\t1" for user, item, when in interactions() if low <= when < high]
        Path(f"data.{split}.rating").write_text("\n".join(lines) + "\n")
    Path("data_id_ingre_num_file").write_text("".join(f"{k}\t2\n" for k in range(N_ITEMS)))
    np.save("data_ingre_code_file.npy", np.arange(2 * N_ITEMS).reshape(N_ITEMS, 2) % 7)
    features = np.random.default_rng(0).standard_normal((N_ITEMS, 6)).astype("float32")
    np.save("data_image_features_float.npy", features)
    run_converter(["allrecipes", "--release", "data"])
    folder = Path("dataset") / "allrecipes"
    keys = {**KEYS, "features_file": str(folder / "allrecipes.features.npy")}
    keys["load_col"] = {"inter": ["user_id", "item_id"]}
    keys["eval_args"] = {"order": "RO"}  # there are no times
    result = run("CIERec", "allrecipes", config_dict=keys)
    assert 0 <= result["test_result"]["recall@10"] <= 1


@pytest.fixture
def formats(shared_dir, in_tmp) -> Path:
    return shared_dir / "data" / "formats"


def log_of(model: str, dataset: str, **keys: object) -> str:
    """Train one epoch; returns the log."""
    result = run(model, dataset, config_dict={**KEYS, **keys})
    assert 0 <= result["test_result"]["recall@10"] <= 1
    return Path(result["log_file"]).read_text(encoding="utf-8")


@pytest.mark.shared
def test_musical_instruments_of_2014_train_by_the_command_line(formats):
    reviews = formats / "amazon2014_reviews_Musical_Instruments_5.head200.json"
    run_converter(["amazon", "--reviews", str(reviews)])
    words = ["--model=MF", "--dataset=amazon", "--epochs=1", "--use_gpu=False"]
    done = programs.finished(*words, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Test result of MF on amazon" in done.stdout


@pytest.mark.shared
def test_gift_cards_of_2018_train_before_their_pictures_are_downloaded(formats):
    words = ["--reviews", formats / "amazon2018_Gift_Cards_5.json.gz"]
    words += ["--metadata", formats / "amazon2018_meta_Gift_Cards.json.gz"]
    words += ["--preset", "amazon-cds", "--category", "Gift Cards"]
    run_converter(["amazon", *map(str, words)])
    assert "100 of 100 pictures cannot be used" in log_of("CIERec", "amazon-cds")


@pytest.mark.shared
def test_allrecipes_trains_on_its_excerpt(formats):
    folder = Path("foodrecsys")
    folder.mkdir()
    for split in ("train", "test"):
        source = formats / f"allrecipes_core-data-{split}_rating.10k.csv"
        (folder / f"core-data-{split}_rating.csv").symlink_to(source)
    recipes = formats / "allrecipes_core-data_recipe.first256KiB.csv"
    (folder / "core-data_recipe.csv").symlink_to(recipes)
    # There is no excerpt of the validation file: rows of the test file are used instead.
    with (folder / "core-data-test_rating.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    with (folder / "core-data-valid_rating.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows[::3]])
    run_converter(["allrecipes", "--folder", "foodrecsys", "--max-bad-share", "0.02"])
    assert "Test result of CIERec" in log_of("CIERec", "allrecipes", eval_args={"mode": "user100"})


@pytest.mark.shared
def test_two_records_of_2023_load_and_are_too_few_to_train_in_one_line(formats):
    words = ["--reviews", formats / "amazon2023_reviews.excerpt.jsonl"]
    words += ["--metadata", formats / "amazon2023_meta.excerpt.jsonl", "--min-match", "0"]
    run_converter(["amazon", *map(str, words)])
    with pytest.raises(UserError):
        run("MF", "amazon", config_dict=KEYS)
