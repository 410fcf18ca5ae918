"""Texts of the command line and what they become."""

from __future__ import annotations

import re
import time

import pytest

from recbole_cierec.config.yaml import parse_command_line, parse_value, read_yaml
from recbole_cierec.errors import ConfigError


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


TEN = "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"


def laughs(levels, of="[{}]"):
    """Each level names the one below ten times."""
    lines = ["a0: &a0 " + TEN]
    for k in range(1, levels):
        lines.append(f"a{k}: &a{k} " + of.format(", ".join([f"*a{k - 1}"] * 10)))
    return "\n".join(lines)


BOMBS = {
    "lists": laughs(9),
    "mappings": "a0: &a0 {b: 1}\n"
    + "\n".join(
        f"a{k}: &a{k} {{{', '.join(f'k{j}: *a{k - 1}' for j in range(10))}}}" for k in range(1, 9)
    ),
    "merges": "a0: &a0 {b: 1}\n"
    + "\n".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}" for k in range(1, 9)),
    "long texts": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 9000)}]",
    "itself": "a: &a [1, *a]",
    "itself in a mapping": "a: &a\n  b: *a",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_stands_for_too_many_values_is_one_line_at_once(tmp_path, name):
    (tmp_path / "b.yaml").write_text(BOMBS[name])
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"b\.yaml: expands to more than 10,000 values") as caught:
        read_yaml(tmp_path / "b.yaml")
    assert time.process_time() - began < 1
    assert "\n" not in str(caught.value)


def test_a_value_of_the_command_line_has_the_same_limit():
    text = "[&a " + TEN
    for k in range(8):
        text += f", &{'bcdefghi'[k]} [{', '.join(['*' + 'abcdefgh'[k]] * 10)}]"
    with pytest.raises(ConfigError, match="expands to more than 10,000 values") as caught:
        parse_value(text + "]")
    assert len(str(caught.value)) < 300


def test_aliases_within_reason_are_what_they_name(tmp_path):
    (tmp_path / "c.yaml").write_text(laughs(3) + "\nb: {<<: &m {c: 1}, d: 2}\ne: {<<: *m}")
    values = read_yaml(tmp_path / "c.yaml")
    assert values["a2"] == [[[1] * 10] * 10] * 10
    assert values["b"] == {"c": 1, "d": 2}
    assert values["e"] == {"c": 1}


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path):
    (tmp_path / "long.yaml").write_bytes(b"a: 1\n" + b"# " * 2**20)
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        read_yaml(tmp_path / "long.yaml")


@pytest.mark.parametrize("text", ["9" * 400, "0x" + "f" * 5000, f"!!int '0b{'1' * 5000}'"])
def test_numbers_that_no_machine_has_are_no_numbers(tmp_path, text):
    assert parse_value(text) == text
    assert parse_value(str(2**64 - 1)) == 2**64 - 1
    (tmp_path / "n.yaml").write_text(f"seed: {text}")
    with pytest.raises(ConfigError, match=r"n\.yaml:1: .*a whole number of more than 64 bits"):
        read_yaml(tmp_path / "n.yaml")


def test_a_file_is_read_anew_and_what_a_caller_changes_reaches_no_other(tmp_path):
    file = tmp_path / "d.yaml"
    file.write_text("a: {b: [1]}")
    read_yaml(file)["a"]["b"].append(2)
    assert read_yaml(file) == {"a": {"b": [1]}}
    file.write_text("a: 3")
    assert read_yaml(file) == {"a": 3}
