"""MovieLens 100K, 1M, 10M, 20M, 25M, 32M and latest: an unpacked folder from GroupLens.

Page: https://grouplens.org/datasets/movielens/. Annotations are the genres. The data sets hold no
pictures; ``--images`` takes a folder of posters named by movie id (``1.jpg``) or IMDb id
(``tt0114709.jpg``, ``0114709.jpg``).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_cierec.errors import DataError

from .options import add_folder, add_images
from .pictures.items import attach_images
from .tables.csv import read_csv
from .tables.sql import column, number, quote, ref
from .tables.workspace import Workspace

NAME = "movielens"
_GENRES_100K = 19
_NO_GENRE = ("unknown", "(no genres listed)", "")


@dataclass(frozen=True)
class Layout:
    """The files of one release.

    Args:
        ratings: File name of the ratings.
        movies: File name of the movies.
        separator: Between two cells of the ratings.
        movie_separator: Between two cells of the movies.
        header: Whether the files have a header.
    """

    ratings: str
    movies: str
    separator: str
    movie_separator: str
    header: bool


_NEW = Layout("ratings.csv", "movies.csv", ",", ",", True)
_1M = Layout("ratings.dat", "movies.dat", "::", "::", False)
_100K = Layout("u.data", "u.item", "\t", "|", False)
_RATING = ("userId", "movieId", "rating", "timestamp")
_MOVIE = ("movieId", "title", "genres")
_LINK = ("movieId", "imdbId")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    add_folder(group, "the unpacked release: with ratings.csv, ratings.dat or u.data")
    add_images(group, "posters")
    group.add_argument(
        "--image-key",
        choices=("movie", "imdb"),
        default="movie",
        help="the id in the posters' file names; imdb needs links.csv (default: movie)",
    )


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: The folder is no release of MovieLens, or a file of it cannot be read.
    """
    folder = options.folder
    layouts = (_NEW, _1M, _100K)
    layout = next((one for one in layouts if (folder / one.ratings).is_file()), None)
    if layout is None:
        files = ", ".join(one.ratings for one in layouts)
        raise DataError(f"{folder}: holds none of {files}; give the unpacked folder of a release")
    ratings = folder / layout.ratings
    user, item, rating, time = _RATING
    select = {
        "user_id": column(user),
        "item_id": column(item),
        "rating": number(rating),
        "timestamp": number(time),
    }
    read_csv(
        space,
        "interactions",
        ratings,
        select,
        required=tuple(select),
        wanted=_RATING,
        what="a table of MovieLens ratings",
        names=None if layout.header else _RATING,
        separator=layout.separator,
    )
    _load_movies(space, folder / layout.movies, layout)
    if options.images:
        by_imdb = options.image_key == "imdb"
        movies = _movies_by_imdb(space, folder / "links.csv") if by_imdb else None
        attach_images(space, options, options.images, lambda files: _by_movie(files, movies))


def _load_movies(space: Workspace, path: Path, layout: Layout) -> None:
    names: Sequence[str] | None = None if layout.header else _MOVIE
    genres = f"string_split({ref('genres')}, '|')"
    if layout is _100K:  # a column of 0 and 1 per genre
        flags = {f"flag{place}": genre for place, genre in enumerate(_genre_names(path.parent))}
        names = ("movieId", "title", "release", "video release", "address", *flags)
        parts = (f"CASE WHEN {ref(key)} = '1' THEN {quote(flags[key])} END" for key in flags)
        genres = f"[{', '.join(parts)}]"
    read_csv(
        space,
        "items",
        path,
        {
            "item_id": column("movieId"),
            "title": ref("title"),
            "annotations": f"list_filter({genres}, lambda genre: genre NOT IN {_NO_GENRE})",
            "image": "NULL::VARCHAR",
            "image_url": "NULL::VARCHAR",
        },
        required=("item_id",),
        wanted=_MOVIE[:2] if layout is _100K else _MOVIE,
        what="a table of MovieLens movies",
        names=names,
        separator=layout.movie_separator,
        quoted=layout.header,
        encoding="utf-8" if layout.header else "latin-1",  # the older releases
    )


def _genre_names(folder: Path) -> list[str]:
    path = folder / "u.genre"
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    names = [line.rpartition("|")[0] for line in lines if line.strip()]
    if len(names) != _GENRES_100K:
        raise DataError(f"{path}: names {len(names)} genres instead of {_GENRES_100K}")
    return names


def _movies_by_imdb(space: Workspace, path: Path) -> dict[int, list[str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; posters named by IMDb id need it")
    select = {"movie": column("movieId"), "imdb": column("imdbId")}
    what = "the table of links"
    read_csv(space, "links", path, select, required=("movie",), wanted=_LINK, what=what)
    movies: dict[int, list[str]] = defaultdict(list)
    for movie, imdb in space.run("SELECT movie, imdb FROM links ORDER BY rowid").fetchall():
        if (key := _imdb(imdb or "")) is not None:
            movies[key].append(movie)
    return movies


def _by_movie(
    files: Iterable[tuple[str, str]], movies: dict[int, list[str]] | None
) -> Iterator[tuple[str, str]]:
    """Movie id and path of each poster."""
    for stem, path in files:
        if movies is None:
            yield stem, path
            continue
        # A poster without a movie gets a name that is no movie's id, and counts as unmatched.
        key = _imdb(stem)
        for movie in movies.get(key, ()) if key is not None else ():
            yield movie, path
        if key not in movies:
            yield f"IMDb {stem}", path


def _imdb(text: str) -> int | None:
    """The number of an IMDb id, with or without tt and leading zeros."""
    digits = text.removeprefix("tt")
    return int(digits) if digits.isascii() and digits.isdigit() else None
