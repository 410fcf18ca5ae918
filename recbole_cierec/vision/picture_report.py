"""Reports on pictures that cannot be used: a list, an error, a warning."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.terminal import one_line
from recbole_cierec.vision.picture_files import ADDRESS, TEMPORARY_PICTURES

Bad = Sequence[tuple[str, str]]  # (path, reason)

COUNTS_AS = {"skip": "no picture", "blank": "a grey blank"}  # a bad picture, by bad_image
_EXAMPLES = 3  # bad pictures named in a message
_SHOWN = 200  # characters of a path
_NONE_LEFT = "; NO picture is left, and models learn nothing from pictures"
_SET_FOLDER = "download them, or set image_dir to the folder where their paths start"
_DOWNLOAD = (
    "some paths are web addresses: download the pictures first, by python -m "
    "recbole_cierec convert images --list=FILE --into=FOLDER (--help says what FILE "
    "holds), and name the downloaded files in their place"
)


def list_bad(bad: Bad, file: Path) -> Path:
    """Write all bad pictures to a text file (path, tab, reason); returns the file."""
    with replacing(file, TEMPORARY_PICTURES) as stream:
        for path, why in bad:
            text = f"{one_line(path)}\t{one_line(why)}\n"
            stream.write(text.encode("utf-8", "backslashreplace"))
    return file


def complaint(bad: Bad, total: int, listed: Path) -> str:
    """The error where bad pictures are not allowed.

    Args:
        bad: All of them.
        total: How many pictures there are in all.
        listed: The file that lists them.
    """
    examples = "; ".join(f"{path[:_SHOWN]}: {why}" for path, why in bad[:_EXAMPLES])
    examples += "; ..." if len(bad) > _EXAMPLES else ""
    advice = _download(bad) or "correct the files, or set bad_image to skip or blank"
    return (
        f"{len(bad):,} of {total:,} pictures cannot be used ({one_line(examples)}); all are listed "
        f"in {listed}; {advice}"
    )


def warn_of_bad(bad: Bad, total: int, policy: str, listed: Path) -> None:
    """One line in the log about bad pictures that are skipped or blank."""
    none_left = len(bad) == total
    advice = _download(bad) or (_SET_FOLDER if none_left else "")
    getLogger().warning(
        "%d of %d pictures cannot be used, bad_image = %s (%s); they are listed in %s%s%s",
        len(bad),
        total,
        policy,
        COUNTS_AS[policy],
        listed,
        _NONE_LEFT if none_left else "",
        advice and f"; {advice}",
    )


def _download(bad: Bad) -> str:
    """What to do if paths are web addresses; "" if none is."""
    return _DOWNLOAD if any(why == ADDRESS for _, why in bad) else ""
