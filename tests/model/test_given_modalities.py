"""Given features of several modalities: which row is whose, what is refused, what models make of
them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec import load, recommend, run
from recbole_cierec.cli.extract import main as extract
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, ConfigError, DataError, UserError
from recbole_cierec.registry import MODELS, get_model_class

READERS = [name for name in MODELS if getattr(get_model_class(name), "reads_features", False)]
SMALL = {"embedding_size": 6, "pretrain_epochs": 1, "content_size": 8, "attention_heads": 2}
WITHOUT = {"i0", "i5", "i39"}  # items that have no text


@pytest.fixture
def home(tiny_folder, in_tmp) -> Path:
    """A copy of tiny with text.npy, whose rows text.ids.txt names in another order, with a row of
    an item that is not in the data."""
    folder = shutil.copytree(tiny_folder / "tiny", in_tmp / "own" / "tiny")
    ids = [f"i{k}" for k in range(38, -1, -1) if f"i{k}" not in WITHOUT] + ["stranger"]
    rng = np.random.default_rng(8)
    np.save(folder / "text.npy", rng.standard_normal((len(ids), 9)).astype("float32"))
    (folder / "text.ids.txt").write_text("\n".join(ids) + "\n")
    return folder


@pytest.fixture
def keys(tiny, home):
    """Keys of a run with features of pictures and text."""

    def made(**more) -> dict:
        given = {"image": "features.npy", "text": "text.npy"}
        own = {"data_path": str(home.parent), "features_file": None, "features": given}
        return tiny(**{**own, **SMALL, "epochs": 1, **more})

    return made


@pytest.fixture
def build(make, keys):
    """``build(model, **keys)`` -> (dataset, model)."""

    def built(name: str, **more):
        _, dataset, _, model = make(name, **keys(**more))
        return dataset, model

    return built


def text_of(home: Path, dataset) -> np.ndarray:
    """The raw row of each item, zero without one."""
    ids = (home / "text.ids.txt").read_text().split()
    rows = dict(zip(ids, np.load(home / "text.npy"), strict=True))
    items = dataset.field2id_token["item_id"]
    return np.array([rows.get(item, np.zeros(9)) for item in items], dtype=np.float32)


def test_rows_belong_to_the_ids_next_to_them(home, build):
    dataset, model = build("VBPR", feature_norm="none")
    np.testing.assert_array_equal(model.given.text.numpy(), text_of(home, dataset))
    items = dataset.field2id_token["item_id"]
    lacking = {item for item, has in zip(items, model.given.has_text, strict=True) if not has}
    assert lacking == WITHOUT | {"[PAD]"}


def test_without_ids_rows_follow_the_item_file(home, build):
    rows = np.arange(39 * 2, dtype=np.float64).reshape(39, 2)
    np.save(home / "other.npy", rows)
    given = {"image": "features.npy", "audio": "other.npy"}
    dataset, model = build("VBPR", features=given, feature_norm="none")
    number = dataset.field2token_id["item_id"]
    for item in ("i3", "i38"):
        assert model.given.audio[number[item]].tolist() == rows[int(item[1:])].tolist()
    assert not model.given.has_audio[number["i39"]]


def test_the_base_of_the_ablation_reads_what_cierec_reads(build):
    for name, more in (("CIERec_Base", {"backbone": "VBPR"}), ("CIERec", {"backbone": "VBPR"})):
        _, model = build(name, **more)
        assert not any("text" in key for key in model.state_dict()), name


def test_the_image_of_features_is_features_file_by_another_name(home, keys):
    path = str(home / "features.npy")
    one = run("VBPR", "tiny", config_dict=keys(features=None, features_file=path))
    other = run("VBPR", "tiny", config_dict=keys(features={"image": path}))
    assert one["test_result"] == other["test_result"]


def test_one_line_says_how_many_items_have_features(home, keys):
    log = Path(run("VBPR", "tiny", config_dict=keys(state="info"))["log_file"]).read_text()
    lines = [line for line in log.splitlines() if "Features: image" in line]
    assert len(lines) == 1
    assert lines[0].endswith(
        "Features: image 39 of 40 items, text 37; 1 rows of text belong to no item of this run, "
        "the first to 'stranger'"
    )


def spoil(home: Path, **parts) -> None:
    """Write other ids or rows; both by name."""
    if "ids" in parts:
        (home / "text.ids.txt").write_text("\n".join(parts["ids"]) + "\n")
    if "rows" in parts:
        np.save(home / "text.npy", parts["rows"])


ROWS = np.ones((3, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"ids": ["i1", "i2"], "rows": ROWS}, ["has 3 rows", "text.ids.txt names 2 ids"]),
        ({"ids": ["i1", "i2", "i1"], "rows": ROWS}, ["line 3", "'i1' is in line 1 too"]),
        ({"ids": ["i1", "", "i2"], "rows": ROWS}, ["line 2", "is blank"]),
        ({"ids": ["1", "2", "3"], "rows": ROWS}, ["none of its 3 ids", "'1'", "an item is 'i"]),
        ({"ids": ["i1", "i2", "i7"], "rows": ROWS / [1, 0]}, ["infinity", "item i1"]),
        ({"ids": ["i1", "i2", "i7"], "rows": ROWS[:, 0]}, ["has shape (3,)", "text.ids.txt"]),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_wrong_file_is_one_line(home, keys, parts, words):
    spoil(home, **parts)
    with pytest.raises(DataError) as error:
        run("VBPR", "tiny", config_dict=keys())
    assert all(word in str(error.value) for word in ["text", *words]), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"imge": "a.npy"}, ["unknown key 'imge' in 'features'", "did you mean 'image'"]),
        ({"text": 7}, ["text in 'features' must be the path of a file, not 7"]),
        ("a.npy", ["'features' must be a mapping"]),
    ],
)
def test_a_wrong_key_is_one_line(keys, given, words):
    with pytest.raises(ConfigError) as error:
        Config("VBPR", "tiny", None, keys(features=given), {})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_two_keys_for_the_features_of_pictures_are_refused(keys, in_tmp):
    Path("a.npy").touch()
    with pytest.raises(ConfigError, match="both give the features of pictures; keep one"):
        Config("VBPR", "tiny", None, keys(features_file="a.npy"), {})


def test_a_missing_file_is_one_line(keys):
    given = {"text": "gone.npy", "image": "features.npy"}
    with pytest.raises(DataError, match=r"features\.text .*own/tiny/gone\.npy: no such file"):
        run("VBPR", "tiny", config_dict=keys(features=given))


def test_features_are_normalised_for_each_modality(build):
    _, model = build("VBPR", feature_norm="center", feature_dim=4)
    for values, has in (
        (model.given.text, model.given.has_text),
        (model.encoder.features, model.encoder.has_picture),
    ):
        assert values.shape[1] == 4
        assert float(values[has].norm(dim=1).mean()) == pytest.approx(1.0, abs=1e-5)
        assert not values[~has].any()


# -------------------------------------------------------------------------------- models


def shake(model) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3


def test_vbpr_scores_by_one_map_of_all_features(build):
    _, model = build("VBPR")
    shake(model)
    users, items = torch.arange(1, 31), torch.arange(1, 41)
    scores = model.eval().full_sort_predict(Interaction({"user_id": users})).view(30, -1)[:, 1:]
    joined = torch.cat([model.encoder(items), model.given.text[items]], 1)
    maps = [m.weight for m in (model.projection, model.given_projections["text"])]
    biases = [m.weight for m in (model.visual_bias, model.given_biases["text"])]
    seen = model.seen[items].unsqueeze(1)
    gamma = model.item_embedding(items) * seen
    wanted = model.user_embedding(users) @ gamma.T
    wanted = wanted + model.user_visual(users) @ (joined @ torch.cat(maps, 1).T).T
    wanted = wanted + (joined @ torch.cat(biases, 1).T + model.item_bias(items) * seen).T
    wanted = wanted + model.user_bias(users) + model.global_bias
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5)


def test_mf_content_adds_a_map_of_each_modality(build):
    _, model = build("MF_Content", use_ids=False, use_image=False, use_annotations=False)
    shake(model)
    items = torch.arange(1, 41)
    side = model.eval().item_side(items)
    wanted = model.given.text[items] @ model.given_maps["text"].weight.T
    torch.testing.assert_close(side.vector, wanted)
    assert wanted.any(1).sum() == 37


def test_clcrec_joins_unit_features_to_its_content(build):
    _, model = build("CLCRec", use_annotations=False)
    items = torch.arange(1, 41)
    parts = [model.encoder(items), model.given.text[items]]
    x = torch.cat([torch.nn.functional.normalize(part) for part in parts], 1)
    g = model.content_out(torch.nn.functional.leaky_relu(model.content_in(x), 0.01))
    torch.testing.assert_close(model.content(items), g)


def test_a_modality_without_features_leaves_the_rest_of_the_model_as_it_is(build):
    for name in READERS:
        plain = build(name, features={"image": "features.npy"})[1].state_dict()
        state = build(name)[1].state_dict()
        same = [key for key in plain if not key.startswith("content_in.")]  # CLCRec's inputs grow
        assert all(torch.equal(plain[key], state[key]) for key in same), name
        assert state.keys() > plain.keys() or name == "CLCRec"


def test_alignrec_hides_a_modality_only_if_something_else_stays(build):
    _, model = build("AlignRec")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3, (4000, 2), generator=generator)
    picture, text, audio = (torch.rand(4000, generator=generator) < 0.5 for _ in range(3))
    given = {"text": (torch.zeros(4000, 9), text), "audio": (torch.zeros(4000, 9), audio)}
    token, image, hidden = model.content_encoder.hide(tokens, picture, 0.4, given)
    shown = ((tokens > 0) & ~token).any(1) | (picture & ~image)
    shown |= (text & ~hidden["text"]) | (audio & ~hidden["audio"])
    anything = (tokens > 0).any(1) | picture | text | audio
    assert torch.equal(shown, anything)
    for name, has in (("text", text), ("audio", audio)):
        assert not (hidden[name] & ~has).any()
        free = has & (tokens > 0).all(1) & picture
        assert float(hidden[name][free].float().mean()) == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("name", READERS)
def test_text_changes_what_a_model_learns_and_its_checkpoint_stands_alone(home, keys, name):
    epochs = {"epochs": 2, "learning_rate": 0.1}
    plain = run(name, "tiny", config_dict=keys(features={"image": "features.npy"}, **epochs))
    done = run(name, "tiny", config_dict=keys(**epochs))
    scored = {}
    for key, result in (("plain", plain), ("text", done)):
        job = load(result["checkpoint"])
        again = job.trainer.evaluate(job.loaders[2], load_best_model=False)
        np.testing.assert_equal(dict(again), dict(result["test_result"]))
        users = Interaction({"user_id": torch.arange(1, 31)})
        scored[key] = job.model.full_sort_predict(users)
    assert torch.isfinite(scored["text"]).sum() == torch.isfinite(scored["plain"]).sum()
    assert not torch.equal(scored["text"], scored["plain"])
    np.save(home / "text.npy", np.load(home / "text.npy")[::-1])
    with pytest.raises(CheckpointError, match=r"other data \(features of text\)"):
        load(done["checkpoint"])


@pytest.mark.parametrize("name", READERS)
def test_a_new_item_without_text_counts_as_an_item_that_lacks_it(home, keys, name, caplog):
    """A copy of i5, which has no text and no interaction in training, scores as i5 does."""
    pairs = [line.split("\t")[:2] for line in (home / "tiny.inter").read_text().splitlines()[1:]]
    for part, rows in {
        "train": [p for k, p in enumerate(pairs) if k % 3 < 2 and p[1] != "i5"],
        "valid": [p for k, p in enumerate(pairs) if k % 3 == 2],
        "test": [["u1", "i5"], *pairs[:3]],
    }.items():
        lines = ["user_id:token\titem_id:token", *("\t".join(row) for row in rows)]
        (home / f"tiny.{part}.inter").write_text("\n".join(lines) + "\n")
    own = {"benchmark_filename": ["train", "valid", "test"], "feature_norm": "l2"}
    done = run(name, "tiny", config_dict=keys(**own, learning_rate=0.1))
    tokens = (home / "tiny.item").read_text().splitlines()[6].split("\t")[2]
    Path("new.csv").write_text(f"item_id,annotations\nn,{tokens}\n")
    np.save("new.npy", np.load(home / "features.npy")[5:6])
    with caplog.at_level("WARNING"):
        table = recommend(done["checkpoint"], topk=30, new_items="new.csv", new_features="new.npy")
    assert "New items have no features of text; they count as missing" in caplog.text
    job = load(done["checkpoint"])
    data = job.loaders[0].dataset
    users = table[table["kind"] == "user"]
    numbers = [data.token2id("user_id", user) for user in users["id"]]
    batch = Interaction({"user_id": torch.tensor(numbers)})
    column = data.token2id("item_id", "i5")
    wanted = job.model.full_sort_predict(batch).view(len(users), -1)[:, column].detach().numpy()
    np.testing.assert_allclose(users["score"].to_numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_a_model_without_given_features_says_so(keys):
    notes = Config("DeepStyle", "tiny", None, keys(), {}).notes
    assert "DeepStyle reads no features of text" in notes
    notes = Config("VBPR", "tiny", None, keys(), {}).notes
    assert not any("features" in note for note in notes)


def test_data_without_annotations_train(home, keys):
    lines = (home / "tiny.item").read_text().splitlines()
    empty = [lines[0], *("\t".join([*line.split("\t")[:2], ""]) for line in lines[1:])]
    (home / "tiny.item").write_text("\n".join(empty) + "\n")
    for name in READERS:
        done = run(name, "tiny", config_dict=keys())
        assert done["epochs"] > 0
        assert all(math.isfinite(value) for value in done["test_result"].values()), name


# ------------------------------------------------------------- settings in the folder


def test_a_folder_may_hold_the_settings_of_its_data(home, keys):
    (home / "tiny.yaml").write_text(
        "features: {image: features.npy, text: text.npy}\nepochs: 3\neval_args: {order: RO}\n"
        "use_history: False\n"  # a key of another model
    )
    own = keys()
    del own["features"], own["epochs"]
    config = Config("VBPR", "tiny", None, own, {})
    assert (config["features"]["text"], config["epochs"]) == ("text.npy", 3)
    assert config["eval_args"]["order"] == "RO"
    assert config.folder_file == home / "tiny.yaml"
    assert not any("tiny.yaml" in note for note in config.notes)
    config = Config("VBPR", "tiny", None, {**own, "eval_args": {"order": "TO"}}, {"epochs": "1"})
    assert (config["epochs"], config["eval_args"]["order"]) == (1, "TO")
    done = run("VBPR", "tiny", config_dict={**own, "epochs": 1})
    (home / "tiny.yaml").write_text("feature_norm: none\n")  # a checkpoint has its own
    job = load(done["checkpoint"])
    assert job.model.given.sizes == {"text": 9}
    assert job.config["feature_norm"] == "center"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data_path: x\n", "'data_path' has no effect in a data set's folder"),
        ("featurs: x\n", "unknown key 'featurs'"),
        ("a: [\n", "tiny.yaml"),
    ],
)
def test_wrong_settings_in_a_folder_are_one_line(home, keys, text, words):
    (home / "tiny.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        Config("VBPR", "tiny", None, keys(), {})
    assert words in str(error.value)
    assert str(home / "tiny.yaml") in str(error.value)


def test_amr_starts_from_a_vbpr_of_pictures_alone(keys):
    text = run("VBPR", "tiny", config_dict=keys(embedding_size=3))["checkpoint"]
    result = run("AMR", "tiny", config_dict=keys())
    assert torch.isfinite(load(result["checkpoint"]).model.projection.weight).all()
    with pytest.raises(CheckpointError, match="which AMR does not read"):
        run("AMR", "tiny", config_dict=keys(pretrained=text))


def test_extract_checks_the_features_of_all_modalities(home, capsys, caplog):
    words = ["--dataset=tiny", f"--data_path={home.parent}", "--model=VBPR", "--use_gpu=False"]
    words.append("--features={image: features.npy, text: text.npy}")
    assert extract(words) == 0
    assert "Features: image 39 of 40 items, text 37" in caplog.text
    rows = np.load(home / "text.npy")
    rows[3] = np.nan
    np.save(home / "text.npy", rows)
    assert extract(words) == 2
    assert "1 of 38 rows hold NaN or infinity" in capsys.readouterr().err


def test_content_prior_without_any_modality_is_one_error(make):
    with pytest.raises(ConfigError, match="use_image and use_annotations are both False") as error:
        make("ContentPrior", use_image=False, use_annotations=False)
    assert "\n" not in str(error.value)
