"""MMRec's data folders: the split, the ids and the features are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import programs
import pytest
import yaml
from recbole_cierec.dataset_converters.__main__ import run as run_converter

from recbole_cierec import run
from recbole_cierec.errors import DataError

INTER = """userID\titemID\trating\ttimestamp\tx_label
0\t0\t5.0\t1400000000\t0
0\t2\t4.0\t1400000100\t0
0\t1\t3.0\t1400000200\t1
1\t2\t5.0\t1390000000\t0
1\t0\t1.0\t1390000300\t2
1\t0\t1.0\t1390000300\t2
"""
IMAGE = np.arange(8.0).reshape(4, 2)  # item 3 has no interaction
TEXT = np.arange(6.0).reshape(2, 3)  # item 2 has no text


@pytest.fixture
def folder(write) -> Path:
    home = write("baby.inter", INTER).parent
    np.save(home / "image_feat.npy", IMAGE)
    np.save(home / "text_feat.npy", TEXT)
    write("u_id_mapping.csv", "user_id\tuserID\nA1\t0\nA0\t1\n")
    write("i_id_mapping.csv", "asin,itemID\n00B7,0\n00B8,1\n00B9,2\n00C0,3\n")
    return home


def test_the_split_is_kept_with_every_row(convert, folder):
    made = convert("mmrec", "--folder", folder)
    assert made.rows("train.inter") == [
        ("0", "0", 5.0, 1400000000.0),
        ("0", "2", 4.0, 1400000100.0),
        ("1", "2", 5.0, 1390000000.0),
    ]
    assert made.rows("valid.inter") == [("0", "1", 3.0, 1400000200.0)]
    assert made.rows("test.inter") == [("1", "0", 1.0, 1390000300.0)] * 2
    settings = yaml.safe_load((made.folder / "made.yaml").read_text())
    assert settings["benchmark_filename"] == ["train", "valid", "test"]
    assert settings["features"] == {"image": "made.image.npy", "text": "made.text.npy"}


def features(made, modality: str) -> dict[str, list[float]]:
    ids = (made.folder / f"made.{modality}.ids.txt").read_text().splitlines()
    rows = np.load(made.folder / f"made.{modality}.npy")
    assert rows.dtype == np.float32
    return dict(zip(ids, rows.tolist(), strict=True))


def test_features_have_the_ids_of_their_items(convert, folder):
    made = convert("mmrec", "--folder", folder)
    assert features(made, "image") == {str(k): IMAGE[k].tolist() for k in range(3)}
    assert features(made, "text") == {str(k): TEXT[k].tolist() for k in range(2)}
    assert "rows of made.text.npy: 2" in made.report


def test_raw_ids_replace_the_numbers(convert, folder):
    made = convert("mmrec", "--folder", folder, "--raw-ids", "--all-items")
    assert made.rows("valid.inter")[0][:2] == ("A1", "00B8")
    assert features(made, "image")["00C0"] == IMAGE[3].tolist()
    assert [row[0] for row in made.rows("item")] == ["00B7", "00B8", "00B9", "00C0"]


def test_a_mapping_that_repeats_a_line_repeats_no_interaction(convert, folder, write):
    write("i_id_mapping.csv", "asin,itemID\n00B7,0\n00B8,1\n00B9,2\n00B9,2\n")
    made = convert("mmrec", "--folder", folder, "--raw-ids", "--split", "merge")
    assert len(made.rows()) == 6


def test_merged_parts_are_one_file(convert, folder):
    made = convert("mmrec", "--folder", folder, "--split", "merge")
    assert len(made.rows()) == 6
    assert "benchmark_filename" not in yaml.safe_load((made.folder / "made.yaml").read_text())


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "baby.inter",
            INTER.replace("x_label", "label"),
            ["is not NAME.inter of MMRec", "x_label"],
        ),
        ("baby.inter", INTER.replace("200\t1\n", "200\t7\n"), ["line 4", "split is missing"]),
        ("baby.inter", INTER.replace("\n0\t1\t", "\n0\tB1\t"), ["'B1' is no whole number"]),
        (
            "baby.inter",
            INTER.replace("0\t1\t3.0", "0\t1\t\t3.0"),
            ["line 4", "6 cells instead of 5"],
        ),
        ("other.inter", INTER, ["must hold one NAME.inter", "baby.inter, other.inter"]),
        ("text_feat.npy", "x", ["text_feat.npy: is no .npy file"]),
        ("i_id_mapping.csv", "asin,itemID\nB7,0\n", ["lacks 2 ids", "the first is '1'"]),
        ("i_id_mapping.csv", "asin,item\nB7,0\n", ["is not a mapping of MMRec"]),
        (
            "i_id_mapping.csv",
            "asin,itemID\nB7,0\nB8,1\nB9,2\nB6,1\n",
            ["'1' in itemID has two raw ids"],
        ),
    ],
)
def test_a_wrong_file_is_one_line(convert, folder, write, file, content, words):
    write(file, content)
    with pytest.raises(DataError) as error:
        convert("mmrec", "--folder", folder, "--raw-ids", "--max-bad-share", "0")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_folder_is_one_line(convert, tmp_path):
    with pytest.raises(DataError, match=r"gone: must hold one NAME\.inter of MMRec; it holds none"):
        convert("mmrec", "--folder", tmp_path / "gone")


def test_a_dry_run_writes_nothing(folder, tmp_path):
    report = run_converter(
        ["mmrec", "--folder", str(folder), "--output", str(tmp_path / "out"), "--dry-run"]
    )
    assert report[-1] == "nothing written (--dry-run)"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def converted(in_tmp) -> Path:
    """A folder with 20 items and 30 users, converted to ``baby``."""
    rng = np.random.default_rng(1)
    rows = ["userID\titemID\tx_label"]
    for user in range(30):
        for place, item in enumerate(rng.permutation(20)[:8]):
            rows.append(f"{user}\t{item}\t{max(0, place - 5)}")
    Path("raw").mkdir()
    Path("raw/baby.inter").write_text("\n".join(rows) + "\n")
    np.save("raw/image_feat.npy", rng.standard_normal((20, 16)))
    np.save("raw/text_feat.npy", rng.standard_normal((20, 8)).astype("float32"))
    run_converter(["mmrec", "--folder", "raw", "--name", "baby"])
    return Path("dataset/baby")


def test_what_is_written_runs_at_the_first_try(converted):
    words = ["--model=VBPR", "--dataset=baby", "--epochs=1", "--use_gpu=False"]
    done = programs.finished(*words, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Features: image 20 of 20 items, text 20" in done.stderr
    assert "WARNING" not in done.stderr
    assert "180 training, 30 validation, 30 test" in done.stderr


@pytest.mark.parametrize("model", ["MF_Content", "AlignRec", "CLCRec"])
def test_models_of_several_modalities_train_on_it(converted, model):
    keys = {"epochs": 1, "use_gpu": False, "show_progress": False, "state": "error"}
    keys |= {"embedding_size": 8, "pretrain_epochs": 1}
    assert 0 <= run(model, "baby", config_dict=keys)["test_result"]["recall@10"] <= 1
