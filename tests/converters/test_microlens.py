"""MicroLens' folder: pairs, titles, categories, covers and features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_cierec.errors import ConfigError, DataError

PAIRS = "user,item,timestamp\n1,3,1662984066811\n1,1,1662984067000\n20,3,1662984068500\n"
FEATURES = np.arange(6.0, dtype=np.float32).reshape(3, 2)  # of videos 1, 2, 3


@pytest.fixture
def folder(write) -> Path:
    home = write("MicroLens-100k_pairs.csv", PAIRS).parent
    write("MicroLens-100k_title_en.csv", 'item,title\n1,"Dogs, too"\n2,Nobody\n3,Cats\n')
    write("tags_to_summary.csv", "1,Animals\n3,Film Clips\n")
    write("MicroLens-100k_covers/1.jpg", b"dogs")
    write("MicroLens-100k_covers/3.jpg", b"cats")
    place = home / "extracted_modality_features"
    place.mkdir()
    np.save(place / "MicroLens-100k_image_features_CLIPRN50.npy", FEATURES)
    np.save(place / "MicroLens-100k_title_en_text_features_BgeM3.npy", 10 * FEATURES[:2])
    return home


def test_the_folder_as_published(convert, folder):
    made = convert("microlens", "--folder", folder)
    assert made.rows() == [
        ("1", "3", 1662984066.811),
        ("1", "1", 1662984067.0),
        ("20", "3", 1662984068.5),
    ]
    dogs, cats = made.rows("item")
    assert (dogs[0], dogs[1], dogs[3]) == ("1", "Dogs, too", "Animals")
    assert (cats[0], cats[3]) == ("3", "Film_Clips")
    assert (made.folder / cats[2]).read_bytes() == b"cats"
    settings = yaml.safe_load((made.folder / "made.yaml").read_text())
    assert settings == {"features": {"image": "made.image.npy", "text": "made.text.npy"}}
    assert (made.folder / "made.image.ids.txt").read_text() == "1\n3\n"
    assert np.load(made.folder / "made.image.npy").tolist() == FEATURES[[0, 2]].tolist()
    assert (made.folder / "made.text.ids.txt").read_text() == "1\n"  # two rows: no video 3


def test_sequences_are_read_where_there_are_no_times(convert, folder, write):
    (folder / "MicroLens-100k_pairs.csv").unlink()
    write("MicroLens-100k_pairs.tsv", "1\t3 1\n20\t3\n")
    made = convert("microlens", "--folder", folder, "--features")
    assert made.rows() == [("1", "3", 1.0), ("1", "1", 2.0), ("20", "3", 1.0)]
    assert not (made.folder / "made.yaml").exists()
    assert any("places of videos" in line for line in made.report)


def test_the_names_of_the_readme_work_too(convert, folder, write):
    write("MicroLens-100k_pairs.csv", PAIRS.replace("user,item", "userID,videoID"))
    assert convert("microlens", "--folder", folder).rows()[0] == ("1", "3", 1662984066.811)


def test_features_by_name(convert, folder, write):
    path = write("mine.npy", b"")
    np.save(path, FEATURES)
    made = convert("microlens", "--folder", folder, "--features", f"video={path}")
    settings = yaml.safe_load((made.folder / "made.yaml").read_text())
    assert settings == {"features": {"video": "made.video.npy"}}
    with pytest.raises(ConfigError, match="no modality is named 'vido'; did you mean 'video'"):
        convert("microlens", "--folder", folder, "--features", f"vido={path}", "--name", "x")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("MicroLens-100k_pairs.csv", None, ["holds none of *_pairs.csv"]),
        ("MicroLens-100k_pairs.csv", PAIRS.replace("item", "x"), ["table of MicroLens' pairs"]),
        ("MicroLens-100k_pairs.csv", PAIRS.replace("1,1,1662984067000", "1,,1"), ["line 3"]),
        ("MicroLens-100k_title_en.csv", "a,b\n1,x\n", ["no table of videos and titles", "a, b"]),
    ],
)
def test_a_wrong_file_is_one_line(convert, folder, write, file, content, words):
    if content is None:
        (folder / file).unlink()
    else:
        write(file, content)
    with pytest.raises(DataError) as error:
        convert("microlens", "--folder", folder, "--max-bad-share", "0")
    assert all(word in str(error.value) for word in words), str(error.value)
