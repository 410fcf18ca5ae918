"""Exported vectors against full_sort_predict."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from safetensors.numpy import load_file

from recbole_cierec import load, run
from recbole_cierec.__main__ import main
from recbole_cierec.errors import OutputError
from recbole_cierec.serving.export import export

INNER = {
    "MF": {},
    "VBPR": {},
    "MF_Content": {},
    "AMR": {"embedding_size": 6},
    "DeepStyle": {},
    "PiNet": {"pretrain_epochs": 1},
    "AlignRec": {"pretrain_epochs": 1, "embedding_size": 6},
    "CLCRec": {},
    "FREEDOM": {},
    "MGCN": {},
    "ContentPrior": {},
    "DropoutNet": {"mlp_hidden_size": [7]},
    "CIERec_Base": {"backbone": "VBPR"},
    "CIERec_CI": {"backbone": "VBPR"},
    "BPR": {},
    "LightGCN": {"embedding_size": 8},
}
NOT_INNER = {"CIERec": {}, "HAFR": {}, "VECF": {}, "ItemKNN": {}, "NeuMF": {"mlp_hidden_size": [8]}}


@pytest.mark.parametrize("name", INNER)
def test_products_and_biases_are_the_scores_of_full_sort_predict(tiny, name):
    done = run(name, "tiny", config_dict=tiny(epochs=1, **INNER[name]))
    export(done["checkpoint"], "out")
    kept = np.load("out/vectors.npz")
    scores = kept["users"] @ kept["items"].T + kept["user_bias"][:, None] + kept["item_bias"]
    job = load(done["checkpoint"])
    data = job.loaders[0]._dataset
    users = torch.arange(1, data.user_num)
    with torch.no_grad():
        wanted = job.model.full_sort_predict(Interaction({"user_id": users}))
    wanted = wanted.view(len(users), -1)[:, 1:].numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-5)
    assert np.ptp(wanted) > 1e-4
    assert kept["user_ids"].tolist() == data.field2id_token["user_id"][1:].tolist()
    assert kept["item_ids"].tolist() == data.field2id_token["item_id"][1:].tolist()
    for kind in ("user", "item"):
        table = duckdb.sql(f"SELECT * FROM 'out/{kind}s.parquet'").fetchnumpy()  # noqa: S608
        assert table["id"].tolist() == kept[f"{kind}_ids"].tolist()
        assert np.array_equal(np.stack(table["vector"].tolist()), kept[f"{kind}s"])
        assert np.array_equal(table["bias"], kept[f"{kind}_bias"])


@pytest.mark.parametrize("name", NOT_INNER)
def test_a_model_that_is_no_inner_product_says_so_in_one_line(tiny, caplog, name):
    keys = tiny(epochs=1, **NOT_INNER[name])
    if name == "VECF":
        keys["features_file"] = keys["features_file"].replace("features.npy", "regions.npy")
    done = run(name, "tiny", config_dict=keys)
    with caplog.at_level("WARNING"):
        export(done["checkpoint"], "out")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "export.json",
        "model.safetensors",
    ]
    assert f"{name} is no inner product of a user's and an item's vector" in caplog.text
    assert json.loads(Path("out/export.json").read_text())["inner_product"] is False


def test_the_weights_are_those_of_the_model(tiny):
    done = run("CIERec", "tiny", config_dict=tiny(epochs=1))
    export(done["checkpoint"], "out")
    kept, ours = load_file("out/model.safetensors"), load(done["checkpoint"]).model.state_dict()
    assert kept.keys() == ours.keys()
    assert all(np.array_equal(kept[name], ours[name].numpy()) for name in ours)
    described = json.loads(Path("out/export.json").read_text())
    assert (described["model"], described["users"], described["items"]) == ("CIERec", 30, 40)
    assert described["provenance"]["config_digest"] == done["config_digest"]


def test_an_earlier_export_is_replaced_and_another_folder_is_not(tiny, capsys):
    done = run("MF", "tiny", config_dict=tiny(epochs=1))
    for _ in range(2):
        assert main(["export", done["checkpoint"], "--out=out"]) == 0
    assert "written: out" in capsys.readouterr().out
    assert len({path.stat().st_mode for path in Path("out").iterdir()}) == 1
    Path("file").touch()
    assert main(["export", done["checkpoint"], "--out=file/out"]) == 2
    assert "file/out: cannot be written (" in (said := capsys.readouterr().err)
    assert "set --out to another folder" in said
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    with pytest.raises(
        OutputError, match=r"mine: cannot be written \(the folder holds other files\)"
    ):
        export(done["checkpoint"], "mine")
    for flags, said in (
        ([], "--out=FOLDER is missing"),
        (["--outt=x"], "unknown flag --outt; did you mean 'out'?"),
    ):
        assert main(["export", done["checkpoint"], *flags]) == 2
        assert said in capsys.readouterr().err


def test_neither_a_file_nor_what_was_put_into_an_export_is_replaced(tiny, capsys):
    done = run("MF", "tiny", config_dict=tiny(epochs=1))
    checkpoint, notes = Path(done["checkpoint"]), Path("notes.txt")
    notes.write_text("mine")
    before = checkpoint.read_bytes()
    for file in (notes, checkpoint):
        assert main(["export", str(checkpoint), f"--out={file}"]) == 2
        assert f"{file}: cannot be written (it is a file); give a folder" in capsys.readouterr().err
    assert notes.read_text() == "mine"
    assert checkpoint.read_bytes() == before
    assert main(["export", str(checkpoint), "--out=out"]) == 0
    kept = checkpoint.rename("out/model.pth")
    assert main(["export", str(kept), "--out=out"]) == 2
    assert "the folder holds other files" in capsys.readouterr().err
    assert kept.read_bytes() == before
