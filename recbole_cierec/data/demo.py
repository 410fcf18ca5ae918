"""Embedded demo data: a small catalogue of drawn pictures with a known best ranking.

Every item is a stack of two or three *elements* (a colour with a pattern, ``red_discs``).
Its picture shows the elements and its annotations name them. A user likes a few elements and
belongs to a circle that the pictures do not show. Interactions are drawn from the softmax of

    score(u, i) = taste_u . elements_i + CIRCLE_WEIGHT [circle_u = circle_i] + appeal_i,

where appeal is the popularity of an item. Content reveals the taste from few interactions, only ids
reveal circle and appeal, and a model needs both to come close to the planted score, which
:func:`planted_truth` returns.

The bytes depend only on the seed: random numbers are the raw stream of PCG64, which numpy promises
to keep; scores lie on a binary grid, so sums are exact in any order; and pictures are stored
uncompressed, so they do not depend on the version of zlib or Pillow.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_cierec.errors import DataError
from recbole_cierec.files.leftovers import TEMPORARY, claimed, clear_leftovers

NAME = "demo"
FORMAT = 1  # increase it with every change of the bytes
MARKER = "demo.json"

# --- size ---------------------------------------------------------------------------------------
N_USERS = 900
N_ITEMS = 1000
MIN_ACTIVITY, MAX_ACTIVITY = 5, 60  # interactions of a user
MEAN_EXTRA_ACTIVITY = 8.0  # exponential above the minimum: two thirds of the users stay below 14

# --- items --------------------------------------------------------------------------------------
COLOURS = {
    "red": (214, 30, 36),
    "orange": (246, 138, 20),
    "yellow": (240, 224, 40),
    "green": (34, 150, 50),
    "cyan": (40, 200, 214),
    "blue": (30, 60, 205),
    "violet": (140, 40, 190),
    "pink": (246, 130, 190),
}
PATTERNS = ("discs", "stripes", "checks")
ELEMENTS = tuple(f"{colour}_{pattern}" for colour in COLOURS for pattern in PATTERNS)
ELEMENT_COUNTS = (2, 3)  # elements of an item, equally frequent
N_CIRCLES = 4  # groups of items that no picture shows, and of users who prefer them
APPEAL_SCALE = 1.0  # exponential: the long tail of popularity
LATE_SHARE, LATE_FROM = 0.09, 0.72  # share of items that arrive after this part of the period

# --- users --------------------------------------------------------------------------------------
LIKED_COUNTS = (2, 3, 4)  # elements that a user likes
TASTE_WEIGHT = 4.0  # utility of a liked element
CIRCLE_WEIGHT = 3.5  # utility of an item from the user's own circle

# --- missing content ----------------------------------------------------------------------------
N_WITHOUT_PICTURE = 40  # with annotations
N_WITHOUT_ANNOTATIONS = 40  # with a picture
N_WITHOUT_BOTH = 4
N_UNLISTED = 3  # in demo.inter, not in demo.item

# --- drawing ------------------------------------------------------------------------------------
SIDE = 64  # pixels
GROUND = 40  # darkest background; near black, so that every colour stands out
SHADES = 8  # brightness levels of a colour, as noise

PERIOD = 500_000  # minutes; below 2^24, as RecBole stores times in float32


class _Stream:
    """Random numbers that are equal in all numpy versions: PCG64's raw output, transformed here."""

    def __init__(self, seed: int, purpose: int) -> None:
        # One stream per purpose: a change of one part's draws does not affect the others.
        self._bits = np.random.PCG64([seed, purpose])

    def uniform(self, *shape: int) -> np.ndarray:
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)) * 2.0**-53 + 2.0**-54).reshape(shape)  # in (0, 1)

    def integers(self, high: int, *shape: int) -> np.ndarray:
        return (self.uniform(*shape) * high).astype(np.int64)

    def exponential(self, *shape: int) -> np.ndarray:
        return _on_grid(-np.log(self.uniform(*shape)))

    def gumbel(self, *shape: int) -> np.ndarray:
        return _on_grid(-np.log(-np.log(self.uniform(*shape))))

    def permutation(self, n: int) -> np.ndarray:
        return np.argsort(self.uniform(n), kind="stable")

    def subsets(self, rows: int, n: int, sizes: tuple[int, ...]) -> np.ndarray:
        """Random subsets as a mask [rows, n]; the size of each is drawn from ``sizes``."""
        size = np.array(sizes)[self.integers(len(sizes), rows)]
        rank = np.argsort(np.argsort(self.uniform(rows, n), axis=1), axis=1)
        return rank < size[:, None]


def _on_grid(values: np.ndarray) -> np.ndarray:
    """Round to multiples of 2^-20: hides the last bit of log and makes sums exact in any order."""
    return np.round(values * 2.0**20) / 2.0**20


@dataclass(frozen=True)
class PlantedTruth:
    """The source of the demo data; row u is user ``u%04d``, column i is item ``i%04d``.

    Attributes:
        elements: bool [items, elements], in the order of :data:`ELEMENTS`.
        tastes: float64 [users, elements], utilities.
        user_circle: int64 [users].
        item_circle: int64 [items].
        appeal: float64 [items], utility for all users.
        late: bool [items], whether an item arrives near the end of the period.
        activity: int64 [users], number of interactions.
    """

    elements: np.ndarray
    tastes: np.ndarray
    user_circle: np.ndarray
    item_circle: np.ndarray
    appeal: np.ndarray
    late: np.ndarray
    activity: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """float64 [users, items]: utilities without noise, which give the best possible ranking."""
        same_circle = self.user_circle[:, None] == self.item_circle[None, :]
        taste = self.tastes @ self.elements.T.astype(np.float64)
        return taste + CIRCLE_WEIGHT * same_circle + self.appeal


def planted_truth(seed: int = 2307) -> PlantedTruth:
    """The parameters from which :func:`ensure_demo` draws the data of this seed."""
    items, users, circles = _Stream(seed, 1), _Stream(seed, 2), _Stream(seed, 3)
    # Evenly spaced quantiles of activity fix the share of cold users.
    quantiles = (users.permutation(N_USERS) + 0.5) / N_USERS
    extra = (-np.log1p(-quantiles) * MEAN_EXTRA_ACTIVITY).astype(np.int64)
    return PlantedTruth(
        elements=items.subsets(N_ITEMS, len(ELEMENTS), ELEMENT_COUNTS),
        tastes=TASTE_WEIGHT * users.subsets(N_USERS, len(ELEMENTS), LIKED_COUNTS),
        user_circle=circles.integers(N_CIRCLES, N_USERS),
        item_circle=circles.integers(N_CIRCLES, N_ITEMS),
        appeal=_on_grid(APPEAL_SCALE * items.exponential(N_ITEMS)),
        late=items.permutation(N_ITEMS) < round(LATE_SHARE * N_ITEMS),
        activity=np.minimum(MIN_ACTIVITY + extra, MAX_ACTIVITY),
    )


def _draw_interactions(truth: PlantedTruth, seed: int) -> np.ndarray:
    """Draw interactions: int64 [interactions, 3] of user, item and minute, in order of time.

    The Gumbel-max trick draws from the softmax without replacement: the k best of score + noise.
    A user's times are spread evenly over the period, so the last 30 % of each user's interactions
    fall into the last 30 % of the period, when the late items exist.
    """
    noise, times = _Stream(seed, 4), _Stream(seed, 5)
    n_users, n_items = truth.scores.shape
    early = truth.scores + noise.gumbel(n_users, n_items)
    later = truth.scores + noise.gumbel(n_users, n_items)
    early[:, truth.late] = -np.inf
    jitter = times.uniform(n_users, MAX_ACTIVITY)
    rows = []
    for user, count in enumerate(truth.activity):
        moment = (np.arange(count) + jitter[user, :count]) / count  # one per slot
        n_early = int((moment < LATE_FROM).sum())
        first = np.argsort(-early[user], kind="stable")[:n_early]
        later[user, first] = -np.inf
        then = np.argsort(-later[user], kind="stable")[: count - n_early]
        minute = (moment * PERIOD).astype(np.int64)
        rows.append(np.stack([np.full(count, user), np.r_[first, then], minute], axis=1))
    table = np.concatenate(rows)
    return table[np.argsort(table[:, 2], kind="stable")]


def _draw_pictures(truth: PlantedTruth, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw each item's elements as layers, top to bottom in the order of :data:`ELEMENTS`.

    Background and brightness noise differ between items; the elements determine the rest.

    Returns:
        Palette indices uint8 [items, SIDE, SIDE] and palettes uint8 [items, colours, 3].
    """
    stream, n_items = _Stream(seed, 6), len(truth.elements)
    count = truth.elements.sum(axis=1)
    own = np.argsort(~truth.elements, axis=1, kind="stable")  # an item's elements first, in order
    layer = np.arange(SIDE) * count[:, None] // SIDE  # [items, SIDE]
    shown = np.take_along_axis(own, layer, axis=1)[:, :, None]  # [items, SIDE, 1]: one per line
    colour, pattern = np.divmod(shown, len(PATTERNS))

    y, x = np.mgrid[:SIDE, :SIDE]
    figures = np.stack(
        [
            (2 * (x % 16) - 15) ** 2 + (2 * (y % 16) - 15) ** 2 < 14**2,  # discs
            y % 8 < 4,  # stripes
            (x // 8 + y // 8) % 2 == 0,  # checks
        ]
    )
    inside = figures[pattern[:, :, 0], np.arange(SIDE)]  # [items, SIDE, SIDE]
    whole = np.where(inside, colour, len(COLOURS)).astype(np.uint8)  # the background comes last
    grain = stream.integers(SHADES, n_items, SIDE, SIDE).astype(np.uint8)
    indices = whole * np.uint8(SHADES) + grain

    ground = GROUND + stream.integers(31, n_items, 1, 3)
    named = np.broadcast_to(np.array(list(COLOURS.values())), (n_items, len(COLOURS), 3))
    colours = np.concatenate([named, ground], axis=1)[:, :, None, :]  # [items, colours, 1, 3]
    light = (88 + 2 * np.arange(SHADES))[:, None]  # per cent
    return indices, (colours * light // 100).reshape(n_items, -1, 3).astype(np.uint8)


def _png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """Encode a palette picture as PNG with one stored (uncompressed) block.

    Compressed bytes would differ between zlib versions.
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = indices.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # column 0: filter type none
    lines[:, 1:] = indices
    raw = lines.tobytes()
    block = b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.tobytes()),
            chunk(b"IDAT", b"\x78\x01" + block + struct.pack(">I", zlib.adler32(raw))),
            chunk(b"IEND", b""),
        ]
    )


def _tokens(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{k:04d}" for k in range(count)]


def _declare_states(table: np.ndarray, seed: int) -> dict[str, set[int]]:
    """Choose the items that lack a picture, annotations, both, or their line in demo.item."""
    order = _Stream(seed, 7).permutation(N_ITEMS)
    counts = np.bincount(table[:, 1], minlength=N_ITEMS)
    unlisted = order[counts[order] >= 3][:N_UNLISTED]  # these occur in demo.inter only
    rest = order[~np.isin(order, unlisted)].tolist()
    both, rest = rest[:N_WITHOUT_BOTH], rest[N_WITHOUT_BOTH:]
    no_picture, rest = rest[:N_WITHOUT_PICTURE], rest[N_WITHOUT_PICTURE:]
    return {
        "unlisted": set(unlisted.tolist()),
        "picture": {*both, *no_picture},
        "annotations": {*both, *rest[:N_WITHOUT_ANNOTATIONS]},
    }


def _write_table(path: Path, header: str, rows: list[str]) -> None:
    # Bytes, not text: line ends and encoding must be the same on every system.
    path.write_bytes("".join(f"{row}\n" for row in [header, *rows]).encode("ascii"))


def _build(folder: Path, seed: int) -> None:
    """Write the data set into an empty folder, and last the file that marks it as complete."""
    truth = planted_truth(seed)
    table = _draw_interactions(truth, seed)
    users, items = _tokens("u", N_USERS), _tokens("i", N_ITEMS)
    events = [f"{users[user]}\t{items[item]}\t{minute}" for user, item, minute in table.tolist()]
    _write_table(folder / f"{NAME}.inter", "user_id:token\titem_id:token\ttimestamp:float", events)

    lacking = _declare_states(table, seed)
    indices, palettes = _draw_pictures(truth, seed)
    (folder / "images").mkdir()
    lines = []
    for item, token in enumerate(items):
        if item in lacking["unlisted"]:
            continue
        path = "" if item in lacking["picture"] else f"images/{token}.png"
        if path:
            (folder / path).write_bytes(_png(indices[item], palettes[item]))
        named = () if item in lacking["annotations"] else np.flatnonzero(truth.elements[item])
        lines.append(f"{token}\t{path}\t{' '.join(ELEMENTS[k] for k in named)}")
    header = "item_id:token\timage_path:token\tannotations:token_seq"
    _write_table(folder / f"{NAME}.item", header, lines)

    marker = {"format": FORMAT, "seed": seed, "contents": _contents(folder)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="ascii")


def _contents(folder: Path) -> dict[str, list[int]]:
    """Numbers of files and bytes of each part: finds missing and cut files without reading."""
    parts = {
        f"{NAME}.inter": [folder / f"{NAME}.inter"],
        f"{NAME}.item": [folder / f"{NAME}.item"],
        "images": sorted((folder / "images").glob("i*.png")),
    }
    sizes = {
        part: [f.stat().st_size for f in files if f.is_file()] for part, files in parts.items()
    }
    return {part: [len(size), sum(size)] for part, size in sizes.items()}


def _check_complete(folder: Path, seed: int) -> None:
    """Raise DataError unless ``folder`` holds the complete demo data of this seed."""
    advice = f"move or remove the folder {folder}, and the demo data are created again"
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="ascii"))
        found = (marker["format"], marker["seed"])
        contents = marker["contents"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{folder}: not the embedded demo data ({MARKER} is missing or unreadable); {advice}"
        ) from None
    if found != (FORMAT, seed):
        raise DataError(
            f"{folder}: demo data of format {found[0]} and seed {found[1]}, not of format "
            f"{FORMAT} and seed {seed}; {advice}"
        )
    for part, now in _contents(folder).items():
        if contents.get(part) != now:
            raise DataError(f"{folder / part}: files are missing or changed in size; {advice}")


def _exists(folder: Path) -> bool:
    """Whether the path exists and is not an empty folder."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def ensure_demo(data_path: Path, seed: int = 2307) -> Path:
    """Create the demo data set if it is missing.

    It is built in a hidden folder and renamed when complete, so an interrupted build leaves
    nothing under the final name. Two processes can build at once: the first to finish wins.

    Args:
        data_path: Folder of data sets, created if missing.
        seed: Other seeds give other tastes, items and interactions of the same shape.

    Returns:
        The folder ``<data_path>/demo``.

    Raises:
        DataError: The folder holds something else, or cannot be written.
    """
    data_path = Path(data_path)
    final = data_path / NAME
    try:
        if not _exists(final):
            data_path.mkdir(parents=True, exist_ok=True)
            clear_leftovers(data_path, TEMPORARY)
            with claimed(data_path) as building:
                building.mkdir()
                _build(building, seed)
                _rename(building, final)
    except OSError as error:
        raise DataError(
            f"{final}: cannot write the demo data ({error}); choose another data_path"
        ) from error
    _check_complete(final, seed)
    return final


def _rename(building: Path, final: Path) -> None:
    try:
        os.rename(building, final)
    except OSError:
        if not _exists(final):
            raise  # otherwise another process was faster, and its data are the same
