"""Files of a folder by their age."""

from __future__ import annotations

import os

from recbole_cierec.files.by_age import by_age


def test_the_newest_is_last_and_what_is_gone_is_left_out(tmp_path):
    paths = [tmp_path / name for name in "abcd"]
    for path, time in zip(paths, (30, 10, 20, 10), strict=True):
        path.touch()
        os.utime(path, (time, time))
    a, b, c, d = paths
    assert by_age(paths) == [b, d, c, a]
    assert by_age(paths[::-1]) == [d, b, c, a]
    listed = iter(paths)
    c.unlink()
    assert by_age(listed) == [b, d, a]
