"""MovieLens 100K, 1M, 10M, 20M, 25M, 32M and latest: an unpacked folder from GroupLens.

Page: https://grouplens.org/datasets/movielens/. Annotations are the genres. The data sets hold no
pictures; ``--images`` takes a folder of posters named by movie id (``1.jpg``) or IMDb id
(``tt0114709.jpg``, ``0114709.jpg``).
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_cierec.errors import DataError

from .options import add_images
from .pictures.folders import picture_folder, pictures_below
from .pictures.items import attach_pictures
from .tables.csv import column, named_rows, number, read_csv
from .tables.csv_header import header_of, require_columns
from .tables.records import open_bytes
from .tables.tokens import BLANKS
from .tables.workspace import Workspace

NAME = "movielens"
_GENRES_100K = 19
_NO_GENRE = {"unknown", "(no genres listed)", ""}


@dataclass(frozen=True)
class Layout:
    """The files of one release.

    Attributes:
        ratings: Its file of ratings.
        movies: Its file of movies.
        separator: Between two cells of a rating.
        header: Whether the ratings have a header.
    """

    ratings: str
    movies: str
    separator: str
    header: bool


LAYOUTS = (
    Layout("ratings.csv", "movies.csv", ",", True),
    Layout("ratings.dat", "movies.dat", "::", False),
    Layout("u.data", "u.item", "\t", False),
)
_NAMES = ("userId", "movieId", "rating", "timestamp")
_MOVIE = ("movieId", "title", "genres")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="the unpacked release: with ratings.csv, ratings.dat or u.data",
    )
    add_images(group, "posters")
    group.add_argument(
        "--image-key",
        choices=("movie", "imdb"),
        default="movie",
        help="what posters are named by; imdb needs links.csv (default: movie)",
    )


def expected(options: argparse.Namespace) -> dict[str, int]:
    """None: the paper does not use these data."""
    return {}


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Args:
        space: The workspace.
        options: Ours and the shared ones.

    Raises:
        DataError: The folder is none of GroupLens', or a file of it cannot be read.
    """
    folder = options.folder
    layout = next((one for one in LAYOUTS if (folder / one.ratings).is_file()), None)
    if layout is None:
        names = ", ".join(one.ratings for one in LAYOUTS)
        raise DataError(f"{folder}: holds none of {names}; give the unpacked folder of a release")
    ratings = folder / layout.ratings
    names: Sequence[str] = _NAMES
    if layout.header:
        names = header_of(ratings, ",")
        require_columns(ratings, names, _NAMES, "a table of MovieLens ratings")
    user, item, rating, time = _NAMES
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
        names=names,
        required=tuple(select),
        header=layout.header,
        separator=layout.separator,
    )
    movies = folder / layout.movies
    if not movies.is_file():
        raise DataError(f"{movies}: no such file; the release is not complete")
    space.inputs.append(movies)
    columns = {"item_id": "VARCHAR", "title": "VARCHAR", "annotations": "VARCHAR[]"}
    space.make_table(
        "items",
        {**columns, "image": "VARCHAR", "image_url": "VARCHAR"},
        (
            (movie, title, [g for g in genres if g not in _NO_GENRE], None, None)
            for movie, title, genres in _movies(space, movies, layout)
        ),
    )
    if options.images:
        attach_pictures(space, options, _posters(space, folder, options))


def _movies(space: Workspace, path: Path, layout: Layout) -> Iterator[tuple[str, str, list[str]]]:
    """Yield id, title and genres of each movie."""
    genres = _genre_names(path.parent) if layout.ratings == "u.data" else []
    bad: list[tuple[int, str]] = []
    good = 0
    what = "a table of MovieLens movies"
    rows = named_rows(path, _MOVIE, what, bad) if layout.header else _rows_without(path, layout)
    for line, cells in rows:
        movie = cells[0].strip(BLANKS)
        flags = cells[-_GENRES_100K:]
        if not movie or len(cells) != (5 + _GENRES_100K if genres else 3):
            bad.append((line, f"has {len(cells)} cells, which is no movie"))
            continue
        good += 1
        if genres:
            on = [name for name, flag in zip(genres, flags, strict=True) if flag == "1"]
            yield movie, cells[1], on
        else:
            yield movie, cells[1], cells[2].split("|")
    space.bad.add(path, good + len(bad), len(bad), sorted(bad))


def _rows_without(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    separator = "|" if layout.ratings == "u.data" else "::"
    with io.TextIOWrapper(open_bytes(path), "latin-1") as file:  # these releases are older
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield line, text.rstrip("\r\n").split(separator)


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


def _posters(
    space: Workspace, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, str]]:
    """Yield movie id and path of each poster."""
    found = pictures_below(picture_folder(space, options.images))
    if options.image_key == "movie":
        yield from found
        return
    path = folder / "links.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; posters named by IMDb id need it")
    movies: dict[int | None, list[str]] = defaultdict(list)
    wanted = ("movieId", "imdbId")
    for _, (movie, imdb) in named_rows(path, wanted, "the table of links", []):
        movies[_imdb(imdb)].append(movie.strip(BLANKS))
    movies.pop(None, None)
    for stem, place in found:
        # A poster of no movie gets a name that is no movie's id, and counts as one without.
        for movie in movies.get(_imdb(stem), [f"IMDb {stem}"]):
            yield movie, place


def _imdb(text: str) -> int | None:
    """The number of an IMDb id, with or without tt and leading zeros."""
    digits = text.removeprefix("tt")
    return int(digits) if digits.isascii() and digits.isdigit() else None
