"""MovieLens in its three layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_cierec.errors import DataError

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir"
    " Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()


def flags(*names: str) -> str:
    return "|".join("1" if genre in names else "0" for genre in GENRES)


@pytest.fixture
def ml100k(write) -> Path:
    write("u.genre", "".join(f"{name}|{k}\n" for k, name in enumerate(GENRES)) + "\n")
    movies = f"1|Mis\u00e9rables, Les (1995)|01-Jan-1995||http://x|{flags('Drama', 'Musical')}\n"
    movies += f"2|unknown||||{flags('unknown')}\n"
    write("u.item", movies.encode("latin-1"))
    return write("u.data", "196\t1\t3\t881250949\n186\t2\t4\t891717742\n").parent


@pytest.fixture
def ml1m(write) -> Path:
    movies = "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Jumanji (1995)::Adventure\n"
    write("movies.dat", movies.encode("latin-1"))
    return write("ratings.dat", "1::1::5::978300760\n2::2::3::978302109\n").parent


@pytest.fixture
def latest(write) -> Path:
    write(
        "movies.csv",
        "movieId,title,genres\r\n1,Toy Story (1995),Animation|Sci-Fi\r\n"
        '2,"American President, The (1995)",(no genres listed)\r\n',
    )
    write("links.csv", "movieId,imdbId,tmdbId\r\n1,0114709,862\r\n2,0112346,\r\n")
    rows = "userId,movieId,rating,timestamp\r\n1,1,4.0,964982703\r\n1,2,3.5,964981247\r\n"
    return write("ratings.csv", rows).parent


def test_100k_has_latin_text_and_flags_for_genres(convert, ml100k):
    made = convert("movielens", "--folder", ml100k)
    assert made.rows() == [("196", "1", 3.0, 881250949.0), ("186", "2", 4.0, 891717742.0)]
    assert made.rows("item") == [
        ("1", "Mis\u00e9rables, Les (1995)", None, "Drama Musical"),
        ("2", "unknown", None, None),
    ]


def test_1m_is_separated_by_two_colons(convert, ml1m):
    made = convert("movielens", "--folder", ml1m)
    read = {entry["file"] for entry in made.manifest["inputs"]}
    assert read == {"ratings.dat", "movies.dat"}
    assert made.rows() == [("1", "1", 5.0, 978300760.0), ("2", "2", 3.0, 978302109.0)]
    assert made.rows("item")[0] == ("1", "Toy Story (1995)", None, "Animation Children's Comedy")


def test_25m_and_later_are_csv_with_a_header(convert, latest):
    made = convert("movielens", "--folder", latest)
    assert made.rows() == [("1", "1", 4.0, 964982703.0), ("1", "2", 3.5, 964981247.0)]
    assert made.rows("item") == [
        ("1", "Toy Story (1995)", None, "Animation Sci-Fi"),
        ("2", "American President, The (1995)", None, None),
    ]


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ("movie", {"1.jpg": b"toy", "3.jpg": b"none"}),
        ("imdb", {"tt0114709.jpg": b"toy"}),
        ("imdb", {"114709.png": b"toy", "1.jpg": b"another"}),
    ],
)
def test_posters_are_found_by_movie_or_imdb_id(convert, latest, write, key, files):
    for name, content in files.items():
        write(f"posters/{name}", content)
    words = ("--images", latest / "posters", "--image-key", key)
    made = convert("movielens", "--folder", latest, *words)
    first, second = made.rows("item")
    assert (made.folder / first[2]).read_bytes() == b"toy"
    assert second[2] is None


def test_a_bad_rating_is_named_by_its_line(convert, ml1m, write):
    write("ratings.dat", "1::1::5::978300760\n2::2::x::1\n\n3::3\n4::1::2::3\n")
    made = convert("movielens", "--folder", ml1m, "--max-bad-share", "0.5")
    assert made.manifest["bad_records"][0]["first"] == [
        {"line": 2, "reason": "rating is missing or malformed"},
        {"line": 4, "reason": "has 2 cells instead of 4"},
    ]
    assert [row[0] for row in made.rows()] == ["1", "4"]


def test_a_folder_of_something_else_is_refused(convert, write):
    folder = write("readme.txt", "nothing").parent
    with pytest.raises(DataError, match="give the unpacked folder of a release"):
        convert("movielens", "--folder", folder)


def test_a_bad_movie_is_named_by_its_line_and_an_open_quote_takes_nothing_with_it(
    convert, latest, write
):
    rows = ["movieId,title,genres", '1,"Two\nlines",Drama', "2,lost", ",no id,Drama", "3,Three,War"]
    write("movies.csv", "\n".join([*rows, '4,"Never closed,Drama', "5,Five,War"]) + "\n")
    with pytest.raises(DataError, match=r"movies\.csv: 3 of 5 records .* line 4, has 2 cells"):
        convert("movielens", "--folder", latest)
    made = convert("movielens", "--folder", latest, "--max-bad-share", "0.6", "--all-items")
    assert [row[:2] for row in made.rows("item")] == [("1", "Two lines"), ("3", "Three")]
    lines = [example["line"] for example in made.manifest["bad_records"][0]["first"]]
    assert lines == [4, 5, 7]


def test_a_table_of_links_is_not_taken_for_movies(convert, latest, write):
    write("movies.csv", (latest / "links.csv").read_text())
    with pytest.raises(DataError, match="is not a table of MovieLens movies: no column title"):
        convert("movielens", "--folder", latest)
