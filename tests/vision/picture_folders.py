"""Folders of generated pictures whose colour identifies their item."""

from pathlib import Path

from PIL import Image

from recbole_cierec.vision import picture_store
from recbole_cierec.vision.picture_store import open_store
from recbole_cierec.vision.pictures import PictureSpec

SPEC = PictureSpec(8)


def colour_of(number):
    """A colour that is unique among the first 4,000 items."""
    return (number * 7 % 256, number // 256 * 16, 255 - number % 256)


def paint(file, colour, size=(5, 4)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file, "PNG")


def painted_folder(tmp_path):
    """Twenty pictures 0.png to 19.png, each of a different colour."""
    for number in range(20):
        paint(tmp_path / "images" / f"{number}.png", colour_of(number))
    return tmp_path / "images"


def cache_folder(tmp_path):
    """The folder for the stores; not created yet."""
    return tmp_path / "cache"


def recorded_decoding(monkeypatch):
    """A list to which the name of every decoded file is appended."""
    names, decode = [], picture_store.decode_picture

    def counting(path, spec):
        names.append(Path(path).name)
        return decode(path, spec)

    monkeypatch.setattr(picture_store, "decode_picture", counting)
    return names


def opened(root, paths, cache, spec=SPEC, bad_image="error", **options):
    return open_store(
        root, paths, spec, bad_image=bad_image, cache_dir=cache, progress=False, **options
    )


def assert_own_pictures(store, paths):
    """Every item that has a row has its own colour; the number is in the file's name."""
    for row, path in zip(store.rows, paths, strict=True):
        if row >= 0:
            assert (store.pictures[row] == colour_of(int(Path(path).stem))).all()


def leftovers(cache):
    return [path.name for path in cache.iterdir() if path.name.startswith("tmp-")]


def stores(cache):
    return sorted(path.name for path in cache.glob("pictures-*"))


TWENTY = [f"{number}.png" for number in range(20)]
