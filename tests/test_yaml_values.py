"""Texts of the command line and what they become."""

from __future__ import annotations

import re

import pytest

from recbole_cierec.errors import ConfigError
from recbole_cierec.yaml_values import parse_command_line, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("3", 3),
        ("True", True),
        ("false", False),
        ("[1,2]", [1, 2]),
        ("{a: b}", {"a": "b"}),
        (
            "{'split': {'RS':[0.8,0.1,0.1]}, 'x': None}",
            {"split": {"RS": [0.8, 0.1, 0.1]}, "x": None},
        ),
        ("None", None),
        ("null", None),
        ("~", None),
        ('"None"', "None"),
        ("/a=b", "/a=b"),
        ("~/pictures", "~/pictures"),
        ("[5,inf)", "[5,inf)"),
        ("off", "off"),
        ("010", "010"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("# x", "# x"),
        ("a # b", "a # b"),
        ("...", "..."),
        ("[" * 5000, "[" * 5000),
        ("!!python/object/apply:os.system [x]", "!!python/object/apply:os.system [x]"),
    ],
)
def test_command_line_text_is_read_as_yaml(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        (["--epochs=3"], {"epochs": "3"}),
        (["--epochs", "3", "--seed=1"], {"epochs": "3", "seed": "1"}),
        (["--data_path=/a=b"], {"data_path": "/a=b"}),
        (["--data_path", "/a b"], {"data_path": "/a b"}),
        (["--x", "-0.5"], {"x": "-0.5"}),
        (["--x=1", "--x=1"], {"x": "1"}),
        (["--gpu_id="], {"gpu_id": ""}),
    ],
)
def test_flags_are_split(argv, flags):
    assert parse_command_line(argv) == flags


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--epochs"], "--epochs has no value"),
        (["--epochs", "--seed=1"], "--epochs has no value"),
        (["--image_dir="], "--image_dir has no value"),
        (["epochs=3"], "'epochs=3' is not of the form"),
        (["-x"], "'-x' is not of the form"),
        (["--"], "'--' is not of the form"),
        (["--=3"], "'--=3' is not of the form"),
        (["--seed=1", "--seed=2"], "--seed is given twice, as '1' and as '2'"),
    ],
)
def test_malformed_command_lines_are_refused(argv, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        parse_command_line(argv)
