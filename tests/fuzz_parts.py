"""What is fuzzed: atomic files, keys, npz and json files, pictures, checkpoints."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzzing import (
    ODD_TEXTS,
    FuzzError,
    Generator,
    Part,
    change_bytes,
    change_tree,
    check_line,
    odd_value,
    pick,
)
from PIL import Image
from tiny_data import write_tiny

from recbole_cierec.__main__ import main
from recbole_cierec.cli.compare import compare
from recbole_cierec.config.config import Config
from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.schema import KEYS, Role
from recbole_cierec.config.yaml import parse_command_line
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.quick_start import prepare, run_one
from recbole_cierec.registry import get_model_class
from recbole_cierec.vision.picture_store import open_store
from recbole_cierec.vision.pictures import PictureSpec, decode_picture


def tiny_keys(data_path: Path, **extra: Any) -> dict[str, Any]:
    """Keys of a small run on the data set ``tiny`` below ``data_path``."""
    return {
        "data_path": str(data_path),
        "features_file": str(data_path / "tiny" / "features.npy"),
        "embedding_size": 4,
        "epochs": 1,
        "keep_last_checkpoint": True,
        "show_progress": False,
        "use_gpu": False,
        "state": "error",
        **extra,
    }


# ---- atomic files --------------------------------------------------------------------------------

Rows = list[list[str]]


def _row(rows: Rows, rng: Generator) -> int:
    return int(rng.integers(1, len(rows)))


def _with(rows: Rows, row: int, cells: list[str]) -> Rows:
    return [*rows[:row], cells, *rows[row + 1 :]]


def _with_cell(rows: Rows, row: int, column: int, text: str) -> Rows:
    return _with(rows, row, [*rows[row][:column], text, *rows[row][column + 1 :]])


def odd_cell(rows: Rows, rng: Generator) -> Rows:
    row = int(rng.integers(len(rows)))
    return _with_cell(rows, row, int(rng.integers(len(rows[row]))), pick(rng, ODD_TEXTS))


def odd_column(rows: Rows, rng: Generator) -> Rows:
    """The same text in a column of all rows."""
    column, text = int(rng.integers(len(rows[0]))), pick(rng, ODD_TEXTS)
    return [rows[0], *(_with_cell(rows, k, column, text)[k] for k in range(1, len(rows)))]


def odd_header(rows: Rows, rng: Generator) -> Rows:
    name = pick(rng, ("user_id", "item_id", "timestamp", "image_path", "annotations", "label", "x"))
    kind = pick(rng, ("token", "float", "token_seq", "float_seq"))
    return _with_cell(rows, 0, int(rng.integers(len(rows[0]))), f"{name}:{kind}")


def no_column(rows: Rows, rng: Generator) -> Rows:
    column = int(rng.integers(len(rows[0])))
    return [row[:column] + row[column + 1 :] for row in rows]


def new_column(rows: Rows, rng: Generator) -> Rows:
    text, kind = pick(rng, ODD_TEXTS), pick(rng, ("token", "float", "token_seq", "float_seq"))
    return [[*rows[0], f"x:{kind}"], *([*row, text] for row in rows[1:])]


def reordered(rows: Rows, rng: Generator) -> Rows:
    order = rng.permutation(len(rows[0]))
    return [[row[k] for k in order] if len(row) == len(order) else row for row in rows]


def few_rows(rows: Rows, rng: Generator) -> Rows:
    return rows[: int(rng.integers(1, 8))]


def repeated_rows(rows: Rows, rng: Generator) -> Rows:
    return [*rows, *(rows[_row(rows, rng)] for _ in range(3))]


TABLE = (
    odd_cell, odd_cell, odd_column, odd_header, no_column, new_column, reordered, few_rows,
    repeated_rows,
)  # fmt: skip


def short_row(rows: Rows, rng: Generator) -> Rows:
    row = _row(rows, rng)
    return _with(rows, row, rows[row][:-1])


def long_row(rows: Rows, rng: Generator) -> Rows:
    row = _row(rows, rng)
    return _with(rows, row, [*rows[row], "x"])


def twin_column(rows: Rows, rng: Generator) -> Rows:
    column = int(rng.integers(len(rows[0])))
    return [[*row, row[column]] for row in rows]


def unknown_type(rows: Rows, rng: Generator) -> Rows:
    column = int(rng.integers(len(rows[0])))
    return _with_cell(rows, 0, column, rows[0][column].split(":")[0] + pick(rng, (":int", "", ":")))


def numeric_user(rows: Rows, rng: Generator) -> Rows:
    return [["user_id:float", *rows[0][1:]], *([f"{k}", *r[1:]] for k, r in enumerate(rows[1:]))]


def no_number(rows: Rows, rng: Generator) -> Rows:
    return _with_cell(rows, _row(rows, rng), 2, pick(rng, ("soon", "1 2", "0x1g", "--1", "1e", "")))


def infinite(rows: Rows, rng: Generator) -> Rows:
    return _with_cell(rows, _row(rows, rng), 2, pick(rng, ("inf", "-inf", "1e999", "nan")))


def no_id(rows: Rows, rng: Generator) -> Rows:
    return _with_cell(rows, _row(rows, rng), int(rng.integers(2)), pick(rng, ("", "  ")))


def nul(rows: Rows, rng: Generator) -> Rows:
    row = _row(rows, rng)
    return _with_cell(rows, row, 0, rows[row][0] + "\0")


def stray_return(rows: Rows, rng: Generator) -> Rows:
    row = _row(rows, rng)
    return _with_cell(rows, row, 0, "a\rb")


FORBIDDEN_ROWS = (  # in NAME.inter
    short_row, long_row, twin_column, unknown_type, numeric_user, no_number, infinite, no_id, nul,
    stray_return,
)  # fmt: skip


def not_finite(features: np.ndarray, rng: Generator) -> np.ndarray:
    features = features.copy()
    row = int(rng.integers(len(features)))
    features[row, int(rng.integers(features.shape[1]))] = pick(rng, (np.nan, np.inf, -np.inf))
    return features


def fewer_rows(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features[: int(rng.integers(len(features)))]


def flat(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features.reshape(-1)


def as_text(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features.astype(str)


def as_objects(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features.astype(object)


def complex_numbers(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features.astype(np.complex64)


def too_large(features: np.ndarray, rng: Generator) -> np.ndarray:
    return features.astype(np.float64) * 1e300


FORBIDDEN_FEATURES = (
    not_finite, fewer_rows, flat, as_text, as_objects, complex_numbers, too_large,
)  # fmt: skip


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Atomic(Part):
    """NAME.inter, NAME.item and the features of a data set, up to its three parts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        home = write_tiny(folder / "plain")
        self.files = {name: (home / name).read_bytes() for name in ("tiny.inter", "tiny.item")}
        self.features = np.load(home / "features.npy")

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        home = self.folder / "in" / "tiny"
        shutil.rmtree(home.parent, ignore_errors=True)
        home.mkdir(parents=True)
        files = {**self.files, "features.npy": _npy(self.features)}
        name = pick(rng, ("tiny.inter", "tiny.inter", "tiny.item", "features.npy"))
        forbidden = rng.random() < 0.3 and name != "tiny.item"
        files[name], change = self._changed(name, files[name], forbidden, rng)
        for file, data in files.items():
            (home / file).write_bytes(data)
        model = "VBPR" if name != "tiny.inter" else pick(rng, ("MF", "VBPR", "BPR", "SASRec"))
        self.said = f"{model}, {name}: {change}"
        keys = tiny_keys(home.parent)
        if model not in ("MF", "VBPR"):
            keys.pop("features_file")
        train = not forbidden and rng.random() < 0.03
        return partial(self._train if train else self._build, model, keys), forbidden

    def _changed(self, name: str, data: bytes, forbidden: bool, rng) -> tuple[bytes, str]:
        if name == "features.npy" and forbidden:
            change = pick(rng, FORBIDDEN_FEATURES)
            return _npy(change(self.features, rng)), change.__name__
        if name == "features.npy" or (not forbidden and rng.random() < 0.3):
            return change_bytes(data, rng)
        rows = [line.split("\t") for line in data.decode().splitlines()]
        changes = [pick(rng, FORBIDDEN_ROWS)]
        if not forbidden:
            changes = [pick(rng, TABLE) for _ in range(int(rng.integers(1, 4)))]
        for change in changes:
            rows = change(rows, rng) if len(rows) > 1 and rows[0] else rows
        mark, end, apart = b"", "\n", "\t"
        if not forbidden:
            mark = pick(rng, (b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"))
            end = pick(rng, ("\n", "\n", "\n", "\r\n", "\r", "\n\n"))
            apart = pick(rng, ("\t", "\t", "\t", "\t", ",", " "))
        text = end.join(apart.join(row) for row in rows) + end
        names = "+".join(change.__name__ for change in changes)
        return mark + text.encode("utf-8", "surrogatepass"), f"{names} {mark!r} {end!r} {apart!r}"

    def _build(self, model: str, keys: dict[str, Any]) -> None:
        config = Config(model, "tiny", None, keys, {})
        train = create_dataset(config).build()[0]
        if "features_file" in keys:
            get_model_class(model)(config, train)

    def _train(self, model: str, keys: dict[str, Any]) -> None:
        run_one(model, "tiny", None, keys, False, {})


# ---- keys ----------------------------------------------------------------------------------------

LAUNCH_KEYS = {name for name, key in KEYS.items() if key.role is Role.LAUNCH}
# Keys that start processes, use networks or devices, or may require hours of work.
_NOT_RUN = frozenset(
    "worker nproc gpu_id device log_wandb epochs pretrain_epochs eval_repeats stopping_step"
    " attention_blocks content_layers id_layers n_layers num_layers attention_heads image_size"
    " encoder_weights model dataset shared_negatives".split()
).union(LAUNCH_KEYS)
_MODELS = ("MF", "VBPR", "CIERec", "CIERec_CI_TA_GR", "AMR", "DropoutNet", "HAFR", "BPR", "SASRec")


class Keys(Part):
    """Yaml files and flags with values of every kind, through Config; some through ``main``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_tiny(folder)
        base = yaml.safe_load((properties_dir() / "overall.yaml").read_text("utf-8"))
        self.keys = {model: list(base) for model in _MODELS}
        extra = ["seed", "threshold", "val_interval", "unused_col", "user_inter_num_interval"]
        extra += [
            "benchmark_filename",
            "learner",
            "train_batch_size",
            "field_separator",
        ]
        extra += [
            "clip_grad_norm",
            "normalize_field",
            "ITEM_ID_FIELD",
            "TIME_FIELD",
            "learning_rate",
        ]
        extra += sorted(LAUNCH_KEYS - {"config_file", "config_files"} | {"encoding"})
        for model, keys in self.keys.items():
            own = properties_dir() / "model" / f"{model}.yaml"
            keys += [*extra, *(yaml.safe_load(own.read_text("utf-8")) if own.is_file() else [])]

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        model = pick(rng, _MODELS)
        key = pick(rng, self.keys[model])
        base = tiny_keys(self.folder)
        if model == "HAFR":
            base["features_file"] = base["features_file"].replace("features", "regions")
        if model in ("BPR", "SASRec"):
            base.pop("features_file")
        if rng.random() < 0.2:
            return self._forbidden(model, base, rng), True
        value = odd_value(rng)
        if rng.random() < 0.3 and isinstance(
            config := self._default(model, base, key), dict | list
        ):
            value, _ = change_tree(config, rng, odd_value)
        self.said = f"{model} {key}: {str(value)[:200]!r}"
        way = int(rng.integers(4))
        if way == 0:
            return partial(Config, model, "tiny", None, {**base, key: value}, {}), False
        if way == 1:
            self.said += " in a file"
            return partial(self._file, model, base, self._yaml(key, value, rng)), False
        text = value if isinstance(value, str) else json.dumps(value)
        flag = f"--{key}={text}"
        if way == 2 or key in _NOT_RUN:
            self.said += " as a flag"
            return partial(self._flags, model, base, [flag]), False
        self.said += " through main"
        rest = [f"--{k}={v}" for k, v in base.items() if k != key]
        return partial(self._main, [f"--model={model}", "--dataset=tiny", *rest, flag]), False

    def _default(self, model: str, base: dict[str, Any], key: str) -> Any:
        return Config(model, "tiny", None, base, {})[key]

    def _yaml(self, key: str, value: Any, rng: Generator) -> bytes:
        try:
            text = yaml.safe_dump({key: value}, allow_unicode=True)
        except yaml.YAMLError:
            text = f"{key}: {value}\n"
        data = text.encode("utf-8", "surrogatepass")
        return change_bytes(data, rng)[0] if rng.random() < 0.4 else data

    def _file(self, model: str, base: dict[str, Any], data: bytes) -> None:
        path = self.folder / "in.yaml"
        path.write_bytes(data)
        self.said += f": {data[:200]!r}"
        Config(model, "tiny", [path], base, {})

    def _flags(self, model: str, base: dict[str, Any], words: list[str]) -> None:
        Config(model, "tiny", None, base, parse_command_line(words))

    def _main(self, words: list[str]) -> None:
        said = io.StringIO()
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            code = main(words)
        lines = [x for x in said.getvalue().splitlines() if x.startswith("error: ")]
        if code not in (0, 2) or (code == 2) != (len(lines) == 1):
            raise FuzzError(f"exit code {code}: {said.getvalue()[-300:]}")
        if lines:
            check_line(lines[0])

    def _forbidden(self, model: str, base: dict[str, Any], rng: Generator) -> Callable[[], Any]:
        """A value that breaks a documented rule."""
        rules: dict[str, Any] = {
            "unknown key": ("embeding_size", 4),
            "text for a number": ("train_batch_size", pick(rng, ("many", "1e", [1], {}))),
            "number for a truth value": ("show_progress", pick(rng, (3, "maybe", [], 0.5))),
            "not finite": ("learning_rate", pick(rng, (np.nan, np.inf, "nan", ".inf"))),
            "below its minimum": ("train_batch_size", pick(rng, (0, -1, -(2**40)))),
            "no whole number": ("epochs", pick(rng, (1.5, "1.5", True))),
            "no choice": ("item_vocabulary", pick(rng, ("everything", 3, "al"))),
            "unknown part of eval_args": ("eval_args", {"splits": {"RS": [8, 1, 1]}}),
            "shares": ("eval_args", {"split": {"RS": pick(rng, ([1, -1, 1], [1], "x", []))}}),
            "unknown metric": ("metrics", pick(rng, (["Recal"], "NDGC", [3]))),
            "no cut": ("topk", pick(rng, (0, -5, [5, 5], [], ["x"], 1.5))),
            "unknown column": ("load_col", {"inter": ["user_id", "item_id", "timestam"]}),
        }
        what = pick(rng, list(rules))
        key, value = rules[what]
        self.said = f"{model} {what}, {key}: {value!r}"
        if what == "unknown column":  # known after the file is read
            return partial(self._build, model, {**base, key: value})
        if rng.random() < 0.3:
            text = f"seed: 1\n{key}: 3\n{key}: 3\n"
            self.said = f"{model} {key} twice in a file"
            return partial(self._file, model, base, text.encode())
        return partial(Config, model, "tiny", None, {**base, key: value}, {})

    def _build(self, model: str, keys: dict[str, Any]) -> None:
        create_dataset(Config(model, "tiny", None, keys, {})).build()


# ---- npz and json files --------------------------------------------------------------------------


def _odd_array(rng: Generator) -> np.ndarray:
    shape = pick(rng, ((), (0,), (3,), (1, 1), (30, 5), (2, 0), (30, 5, 1)))
    kind = pick(rng, ("i4", "i8", "u1", "f4", "f8", "c8", "?", "U5", "S3", "O", "M8[s]", "f2"))
    numbers = rng.integers(-3, 60, shape)
    if kind == "M8[s]":
        return numbers.astype("i8").astype(kind)
    return np.asarray(numbers).astype(kind)


class Files(Part):
    """Lists of candidates, results by user, and manifests of picture stores."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_tiny(folder)
        mode = {"valid": "full", "test": "user5"}
        self.lists = folder / "lists.npz"
        more = {"eval_args": {"mode": mode}, "candidates_file": str(self.lists)}
        self.keys = tiny_keys(folder, checkpoint_dir=str(folder / "saved"), **more)
        run_one("MF", "tiny", None, self.keys, True, {})
        users = next((folder / "saved").glob("*.users.npz"))
        self.users, self.base = folder / "in.users.npz", users
        self.plain = {"lists": self.lists.read_bytes(), "users": users.read_bytes()}
        self.root = folder / "images"
        self.root.mkdir()
        for k in range(4):
            Image.new("RGB", (5, 4), (9 * k, 0, 7)).save(self.root / f"{k}.png")
        self.manifest = (self._store().folder / "manifest.json").read_bytes()

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        what = pick(rng, ("lists", "users", "manifest"))
        if what == "manifest":
            return partial(self._manifest, self._json(rng)), False
        if rng.random() < 0.4:
            data, change = change_bytes(self.plain[what], rng)
        else:
            data, change = self._arrays(what, rng)
        self.said = f"{what}: {change}"
        return partial(self._lists if what == "lists" else self._compare, data), False

    def _arrays(self, what: str, rng: Generator) -> tuple[bytes, str]:
        with np.load(io.BytesIO(self.plain[what])) as file:
            arrays = dict(file)
        name = pick(rng, list(arrays))
        if name.endswith("about") and rng.random() < 0.7:
            tree, change = change_tree(json.loads(str(arrays[name])), rng, odd_value)
            arrays[name], change = np.array(json.dumps(tree)), f"{name}: {change}"
        elif rng.random() < 0.2:
            del arrays[name]
            change = f"no {name}"
        elif rng.random() < 0.4 and arrays[name].ndim:
            arrays[name] = arrays[name].copy()
            arrays[name].flat[int(rng.integers(arrays[name].size))] = pick(rng, (0, 1, 39, 100, -7))
            change = f"a cell of {name}"
        else:
            arrays[name] = _odd_array(rng)
            change = f"{name} as {arrays[name].dtype} {arrays[name].shape}"
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=True, **arrays)
        return stream.getvalue(), change

    def _json(self, rng: Generator) -> bytes:
        if rng.random() < 0.4:
            data, change = change_bytes(self.manifest, rng)
        else:
            tree, change = change_tree(json.loads(self.manifest), rng, odd_value)
            data = json.dumps(tree).encode()
        self.said = f"manifest: {change}"
        return data

    def _lists(self, data: bytes) -> None:
        self.lists.write_bytes(data)
        prepare(Config("MF", "tiny", None, self.keys, {}))

    def _compare(self, data: bytes) -> None:
        self.users.write_bytes(data)
        with redirect_stdout(io.StringIO()) as said:
            compare([str(self.base), str(self.users)])
        if "\x1b" in said.getvalue():
            raise FuzzError("an escape sequence is printed")

    def _store(self) -> Any:
        paths = [f"{k}.png" for k in range(4)]
        cache = self.folder / "cache"
        return open_store(
            self.root, paths, PictureSpec(8), bad_image="error", cache_dir=cache, progress=False
        )

    def _manifest(self, data: bytes) -> None:
        """A damaged store is built again, so that the pictures are always the right ones."""
        file = next((self.folder / "cache").glob("pictures-*")) / "manifest.json"
        file.write_bytes(data)
        store = self._store()
        if store.pictures[store.rows][:, 0, 0, 0].tolist() != [0, 9, 18, 27]:
            raise FuzzError("other pictures are taken")


# ---- pictures ------------------------------------------------------------------------------------


def _pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    kinds: dict[str, tuple[str, str, dict]] = {
        "jpeg": ("RGB", "JPEG", {"exif": exif}),
        "progressive": ("RGB", "JPEG", {"progressive": True}),
        "cmyk": ("CMYK", "JPEG", {}),
        "png": ("RGBA", "PNG", {"exif": exif}),
        "palette": ("P", "PNG", {"transparency": 3}),
        "gif": ("P", "GIF", {}),
        "webp": ("RGB", "WEBP", {"exif": exif}),
        "lossless": ("RGBA", "WEBP", {"lossless": True}),
        "bmp": ("RGB", "BMP", {}),
        "tiff": ("RGB", "TIFF", {}),
    }
    made = {}
    for name, (mode, kind, options) in kinds.items():
        stream = io.BytesIO()
        colour.convert(mode).save(stream, kind, **options)
        made[name] = stream.getvalue()
    stream = io.BytesIO()
    frames = [colour.convert("P"), colour.rotate(90).convert("P")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return made | {"animated": stream.getvalue()}


class Pictures(Part):
    """Damaged picture files, through ``decode_picture``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures = _pictures()

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        name, path = pick(rng, list(self.pictures)), self.folder / "picture"
        data = self.pictures[name]
        forbidden = name == "tiff" or rng.random() < 0.2
        if forbidden:
            change = pick(rng, ("half", "no head", "text"))
            half = {"half": data[: len(data) // 2], "no head": data[12:], "text": b"<html>" + data}
            data = half[change]
        elif rng.random() < 0.15:
            other = pick(rng, list(self.pictures))
            place = int(rng.integers(len(data)))
            data, change = data[:place] + self.pictures[other][place:], f"joined with {other}"
        else:
            data, change = change_bytes(data, rng)
        path.write_bytes(data)
        spec = PictureSpec(8, pick(rng, ("squash", "crop", "pad")), pick(rng, (100_000, 10**7)))
        self.said = f"{name}: {change}"
        return partial(self._decode, path, spec), forbidden

    def _decode(self, path: Path, spec: PictureSpec) -> None:
        pixels = decode_picture(path, spec)
        if pixels.shape != (8, 8, 3) or pixels.dtype != np.uint8:
            raise FuzzError(f"decoded to {pixels.dtype} {pixels.shape}")


# ---- checkpoints ---------------------------------------------------------------------------------


def _odd_state(rng: Generator) -> Any:
    if rng.random() < 0.4:
        kind = pick(rng, (torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8))
        shape = pick(rng, ((), (0,), (3,), (2, 2), (31, 4)))
        return torch.from_numpy(rng.integers(0, 9, shape)).to(kind)
    return odd_value(rng)


class Checkpoints(Part):
    """Damaged and hand-made checkpoints, through a resumed run's ``prepare``; some train on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_tiny(folder)
        self.path = folder / "in.last.pth"
        self.models = {"MF": {}, "VBPR": {"learner": "adam"}, "CIERec": {"gr_mode": "reinforce"}}
        self.bytes, self.keys = {}, {}
        for model, more in self.models.items():
            saved = folder / model
            keys = tiny_keys(folder, checkpoint_dir=str(saved), **more)
            run_one(model, "tiny", None, keys, True, {})
            self.bytes[model] = next(saved.glob("*.last.pth")).read_bytes()
            self.keys[model] = {**keys, "resume": str(self.path), "epochs": 2}

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        model, forbidden = pick(rng, list(self.models)), rng.random() < 0.2
        data = self.bytes[model]
        if forbidden:
            change = pick(rng, ("half", "other model", "other data", "no weights"))
            if change == "half":
                data = data[: len(data) // 2]
            else:
                state = self._state(model)
                new = {"other model": "BPR", "other data": "other", "no weights": {}}[change]
                part = {"other model": "model", "other data": "dataset"}.get(change, "state_dict")
                data = self._packed({**state, part: new})
        elif rng.random() < 0.3:
            data, change = change_bytes(data, rng)
        else:
            state, change = change_tree(self._state(model), rng, _odd_state)
            data = self._packed(state)
        self.said = f"{model}: {change}"
        train = not forbidden and rng.random() < 0.2
        return partial(self._resume, model, data, train), forbidden

    def _state(self, model: str) -> dict[str, Any]:
        return torch.load(io.BytesIO(self.bytes[model]), weights_only=True)

    def _packed(self, state: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(state, stream)
        return stream.getvalue()

    def _resume(self, model: str, data: bytes, train: bool) -> None:
        self.path.write_bytes(data)
        read_checkpoint(self.path)
        job = prepare(Config(model, "tiny", None, self.keys[model], {}))
        if train:
            job.train_and_evaluate(False)


PARTS: dict[str, type[Part]] = {
    "atomic": Atomic,
    "keys": Keys,
    "files": Files,
    "pictures": Pictures,
    "checkpoints": Checkpoints,
}
