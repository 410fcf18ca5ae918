"""The folder that a conversion produces: written under a temporary name, then renamed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from recbole_cierec.errors import DataError
from recbole_cierec.files.leftovers import claimed, clear_leftovers
from recbole_cierec.vision.feature_files import ids_file, open_npy

from .picture_names import target_of
from .sql import number_text, quote
from .steps import Steps
from .tokens import is_utf8, safe_id, safe_id_sql, text_cell, title_cell
from .workspace import PATTERN, Workspace

MANIFEST = "conversion.json"
_COLUMNS = ("item_id:token", "title:token_seq", "image_path:token", "annotations:token_seq")
_FEATURE_ROWS = 4096  # written at a time


@contextmanager
def temporary_folder(target: Path, dry_run: bool) -> Iterator[Path]:
    """A folder for everything unfinished, next to the target, removed at the end.

    What killed runs left behind is removed first.

    Args:
        target: The folder that the conversion makes.
        dry_run: Use the system's temporary folder; nothing appears next to the target.

    Raises:
        DataError: It cannot be made.
    """
    home = Path(tempfile.gettempdir()) if dry_run else target.parent
    prefix = f".{target.name}.part-"
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            clear_leftovers(home, prefix)
            folder = stack.enter_context(claimed(home, prefix))
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise DataError(f"{home}: {_why_no_folder(error)}") from None
        yield folder


def _why_no_folder(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "is a file, or below one; give a folder as --output"
    return f"cannot be written to ({error.strerror})"


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier conversion, and that only with ``overwrite``.

    Raises:
        DataError: It would be replaced.
    """
    if PATTERN.intersection(str(target.absolute())) or not is_utf8(str(target.absolute())):
        what = "its path has one of * ? [, or is not UTF-8"
        raise DataError(f"{str(target)!r}: {what}; give another --output")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise DataError(f"{target}: exists already; give --overwrite or another --name")
    if target.is_symlink() or not (target / MANIFEST).is_file():
        raise DataError(f"{target}: holds no {MANIFEST}, so it is not replaced; remove it yourself")


class Writer:
    """Writes the files of a data set into a folder.

    Args:
        space: The workspace after :class:`Steps`.
        steps: What was kept.
        options: The shared options.
        folder: An existing, empty folder.
    """

    def __init__(
        self, space: Workspace, steps: Steps, options: argparse.Namespace, folder: Path
    ) -> None:
        self.space, self.steps, self.options, self.folder = space, steps, options, folder

    def write(self) -> dict[str, int]:
        """Write interactions, items, pictures, the list of pictures to download, features and the
        settings of a run.

        Returns:
            Counts for the report, by name.
        """
        self._write_interactions()
        facts = self._write_items()
        if not self.steps.has["timestamp"] and not self.steps.has["split"]:
            self.space.settings["eval_args"] = {"order": "RO"}
            self.space.notes.append(
                f"without times interactions are split at random: {self.options.name}.yaml has "
                "eval_args: {order: RO}"
            )
        if self.space.settings:
            text = yaml.safe_dump(self.space.settings, sort_keys=False, allow_unicode=True)
            path = self.folder / f"{self.options.name}.yaml"
            path.write_text(f"# What a run on these data needs.\n{text}", encoding="utf-8")
        return facts

    def _write_interactions(self) -> None:
        columns = [
            f'{safe_id_sql("user_id")} AS "user_id:token"',
            f'{safe_id_sql("item_id")} AS "item_id:token"',
        ]
        for key in ("rating", "timestamp"):
            if self.steps.has[key]:
                columns.append(f'{number_text(key)} AS "{key}:float"')
        splits: list[str | None] = [None]
        if self.steps.has["split"]:
            found = self.space.run("SELECT DISTINCT split FROM work ORDER BY split").fetchall()
            splits = [split for (split,) in found]
        for split in splits:
            part = f".{split}" if split else ""
            path = self.folder / f"{self.options.name}{part}.inter"
            where = f"WHERE split = {quote(split)}" if split else ""
            query = (
                f"SELECT {', '.join(columns)} FROM work JOIN users USING (u) "
                f"JOIN catalogue USING (i) {where} ORDER BY row"
            )
            self.space.run(
                f"COPY ({query}) TO {quote(path)} (FORMAT csv, DELIMITER '\t', QUOTE '', "
                "ESCAPE '', HEADER true)",
                f"write {path.name}",
            )

    def _write_items(self) -> dict[str, int]:
        known = {row[0] for row in self.space.run("DESCRIBE items").fetchall()}
        row_of = "feature_row" if "feature_row" in known else "NULL"
        query = (
            f"SELECT k.item_id, title, tokens.annotations, image, image_url, {row_of}"
            f"{''.join(f', {column}' for column in self.space.kept.values())} FROM kept k "
            "JOIN items ON items.rowid = k.line LEFT JOIN tokens USING (i) ORDER BY k.line"
        )
        facts = dict.fromkeys(("described items", "with a picture", "to download", "annotated"), 0)
        feature_rows: list[tuple[str, int | None]] = []
        name = self.options.name
        urls, file = self.folder / f"{name}.image_urls.tsv", self.folder / f"{name}.item"
        with (
            file.open("w", encoding="utf-8", newline="\n") as items,
            urls.open("w", encoding="utf-8", newline="\n") as downloads,
        ):
            items.write("\t".join((*_COLUMNS, *self.space.kept)) + "\n")
            downloads.write("path\turl\n")
            rows = self.space.rows(query)
            bar = tqdm(rows, desc="write items", unit=" items", disable=None, leave=False)
            for item, title, tokens, image, url, row, *more in bar:
                path = self._picture(item, image)
                if not path and url:
                    path = target_of(item, url)
                    downloads.write(f"{path}\t{url}\n")
                    facts["to download"] += 1
                cells = (safe_id(item), title_cell(title), path, tokens or "")
                items.write("\t".join((*cells, *map(text_cell, more))) + "\n")
                feature_rows.append((cells[0], row))
                facts["described items"] += 1
                facts["with a picture"] += bool(path)
                facts["annotated"] += bool(tokens)
        if not facts["to download"]:
            urls.unlink()
        if not facts["described items"]:
            file.unlink()  # training refuses a file with only a header
        for modality, source in self.space.features.items():
            file = self.folder / f"{name}.{modality}.npy"
            facts[f"rows of {file.name}"] = _write_features(source, file, feature_rows)
        return {**facts, "annotation tokens (elements)": self.steps.elements}

    def _picture(self, item: str, image: str | None) -> str:
        if not image:
            return ""
        path = target_of(item, image)
        place_picture(Path(image), self.folder / path, self.options.pictures)
        return path


def _write_features(source: Path, file: Path, items: list[tuple[str, int | None]]) -> int:
    """Copy the rows of items from a file of features, and list their ids in the file next to it.

    Args:
        source: A .npy file.
        file: The new one.
        items: Id and row of each item of NAME.item.

    Returns:
        The number of rows.
    """
    known = open_npy(source, "features")
    listed = [(item, row) for item, row in items if row is not None and 0 <= row < len(known)]
    rows = np.array([row for _, row in listed], dtype=np.int64)
    shape = (len(rows), *known.shape[1:])
    target = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(rows), _FEATURE_ROWS):
        target[start : start + _FEATURE_ROWS] = known[rows[start : start + _FEATURE_ROWS]]
    target.flush()
    ids_file(file).write_text("".join(f"{item}\n" for item, _ in listed), encoding="utf-8")
    return len(rows)


def file_digest(path: Path, cancelled: Event | None = None) -> str:
    """SHA-256 of a file, in hexadecimal; incomplete once the event is set."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while (block := file.read(1 << 20)) and not (cancelled and cancelled.is_set()):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write conversion.json, without a date, so that equal conversions give equal bytes.

    Args:
        folder: Of the finished files, whose sizes and hashes are added.
        facts: The other entries.
    """
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    text = json.dumps({**facts, "files": files}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", errors="replace")


def publish(folder: Path, target: Path) -> None:
    """Rename a finished folder to its final name.

    Pictures that were downloaded into an earlier conversion are linked into the new one first,
    since their names depend only on the items; the earlier one is moved aside and removed last.

    Args:
        folder: Complete, on the same disk.
        target: The final name.

    Raises:
        DataError: The disk is full or refuses to rename.
    """
    if target.exists():
        _keep_pictures(folder, target)
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    try:
        if not target.exists():
            os.rename(folder, target)
            return
        # Next to the target and not in the temporary folder, which the next run would remove.
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        os.rename(target, old)
        try:
            os.rename(folder, target)
        except OSError:
            os.rename(old, target)
            raise
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None
    shutil.rmtree(old, ignore_errors=True)


def _keep_pictures(new: Path, old: Path) -> None:
    """Link the pictures of the earlier folder that would have to be downloaded again."""
    for listed in new.glob("*.image_urls.tsv"):
        with listed.open(encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                path = line.partition("\t")[0]
                if (old / path).is_file():
                    place_picture(old / path, new / path, "link")


def place_picture(source: Path, target: Path, how: str) -> None:
    """Link or copy one picture.

    Args:
        source: The file.
        target: Its folder is created.
        how: ``link`` (a hard link if the disk allows it) or ``copy``.

    Raises:
        DataError: The file cannot be read, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if how == "link":
            try:
                # Symbolic links are followed, so that the file itself is linked.
                os.link(source.resolve(), target)
                return
            except OSError:
                pass  # another disk, or one without hard links
        shutil.copyfile(source, target)
    except OSError as error:
        raise DataError(f"{source}: cannot be copied ({error.strerror})") from None
