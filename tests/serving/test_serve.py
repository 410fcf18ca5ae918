"""Answers of the API against `recommend`, full_sort_predict, and truths computed with numpy."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import struct
import zlib
from collections import Counter

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from recbole.data.interaction import Interaction

from recbole_cierec import recommend
from recbole_cierec.serving.web.shapes import MOST_ROWS, MOST_USERS


def post(client, path: str, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def check_lists(lists: list[dict], table) -> None:
    """Lists of the API against the table of `recommend`, to rounding."""
    for one in lists:
        rows = table[table["user"] == one["user"]]
        assert [item["item"] for item in one["items"]] == rows["item"].tolist()
        scores = [item["score"] for item in one["items"]]
        assert scores == pytest.approx(rows["score"].tolist(), rel=1e-4, abs=1e-6)
        assert [item["rank"] for item in one["items"]] == rows["rank"].tolist()


@pytest.fixture(scope="session")
def tables(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world.folder)
        return {m: recommend(getattr(world, m), topk=7) for m in ("content", "bpr")}


def rows_of(world) -> dict[str, list[str]]:
    """The cells of tiny.item by item."""
    lines = (world.home / "tiny.item").read_text().splitlines()[1:]
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}


@pytest.mark.parametrize(("name", "key"), [("MF_Content", "content"), ("BPR", "bpr")])
def test_a_batch_of_all_users_equals_recommend(client, tables, name, key):
    users = [f"u{k}" for k in range(30)]
    answer = post(client, "/api/recommend", users=users, topk=7, model=name)
    assert answer["model"] == name
    assert [one["user"] for one in answer["lists"]] == users
    assert {one["list"] for one in answer["lists"]} == {"personal"}
    check_lists(answer["lists"], tables[key])


def test_fifty_clients_at_once_get_the_lists_of_recommend(address, tables, models):
    sizes = []
    plain = models[0].recommend
    users = [f"u{k % 30}" for k in range(100)]

    async def all_of_them():
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as session:
            places = asyncio.Semaphore(50)

            async def one(user: str, topk: int) -> dict:
                async with places:
                    body = {"users": [user], "topk": topk}
                    return (await session.post("/api/recommend", json=body)).json()

            return await asyncio.gather(*(one(u, 3 + k % 5) for k, u in enumerate(users)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models[0], "recommend", lambda w: sizes.append(len(w)) or plain(w))
        answers = asyncio.run(all_of_them())
    for k, (user, answer) in enumerate(zip(users, answers, strict=True)):
        (found,) = answer["lists"]
        assert found["user"] == user
        table = tables["content"]
        check_lists([found], table[table["rank"] <= 3 + k % 5])


def test_requests_that_wait_are_ranked_in_one_call(models):
    from recbole_cierec.serving.web.batches import Batches, Worker

    calls = []

    async def ask() -> list[int]:
        worker = Worker("test")
        batches = Batches(worker, lambda x: calls.append(len(x)) or [-k for k in x], int, 30)
        answers = await asyncio.gather(*(batches.ask(k) for k in range(1, 11)))
        worker.close()
        return answers

    assert asyncio.run(ask()) == [-k for k in range(1, 11)]
    assert calls == [7, 3]  # 1 + ... + 7 = 28 is below 30


def test_a_call_that_fails_fails_its_requests_and_no_later_one():
    from recbole_cierec.serving.web.batches import Batches, Worker

    async def ask() -> list:
        worker = Worker("test")
        batches = Batches(worker, lambda x: [1 // k for k in x], lambda k: 1, 1)
        answers = await asyncio.gather(*map(batches.ask, (1, 0, 1)), return_exceptions=True)
        worker.close()
        return answers

    first, second, third = asyncio.run(ask())
    assert (first, third) == (1, 1)
    assert isinstance(second, ZeroDivisionError)


def test_an_unknown_user_gets_the_most_popular_items(client, world, models):
    train = models[1].trained.parts[0].inter_feat["item_id"].numpy()
    counts = Counter(train.tolist())
    best = sorted(counts, key=lambda item: (-counts[item], item))[:6]
    (found,) = post(client, "/api/recommend", users=["nobody"], topk=6)["lists"]
    assert (found["user_status"], found["list"]) == ("unknown", "popular")
    assert [i["item"] for i in found["items"]] == [models[1].trained.item_ids[i] for i in best]
    assert [i["score"] for i in found["items"]] == [counts[item] for item in best]
    pairs = [{"user": "nobody", "item": "i3"}]
    (score,) = post(client, "/api/score", pairs=pairs)["scores"]
    number = int(models[1].trained.numbers_of("item", ["i3"])[0])
    assert (score["score"], score["by"]) == (counts[number], "popularity")


def test_history_and_content_of_a_list_are_those_of_the_files(client, world, models):
    (found,) = post(client, "/api/recommend", users=["u3"], topk=40, history=True)["lists"]
    (seen,) = post(client, "/api/recommend", users=["u3"], topk=40, with_seen=True)["lists"]
    history = {item["item"] for item in found["history"]}
    assert history
    assert len(history) == found["history_total"]
    assert {i["item"] for i in seen["items"]} - {i["item"] for i in found["items"]} == history
    when = {}
    for line in (world.home / "tiny.inter").read_text().splitlines()[1:]:
        user, item, time = line.split("\t")
        when[user, item] = float(time)
    times = [when["u3", item["item"]] for item in found["history"]]
    assert times == sorted(times, reverse=True)
    rows = rows_of(world)
    for item in found["items"] + found["history"]:
        path, words = rows.get(item["item"], ("", ""))
        assert (item["picture"], item["annotations"]) == (bool(path), words.split())
        assert item["labels"] == [word.replace(*world.label) for word in words.split()]
    assert any(world.label[1] in item["labels"] for item in found["items"])


def test_scores_of_pairs_are_those_of_full_sort_predict(client, models):
    trained = models[0].trained
    pairs = [(f"u{k % 30}", f"i{k % 37}") for k in range(60)]
    found = post(client, "/api/score", pairs=[{"user": u, "item": i} for u, i in pairs])["scores"]
    users, items = (trained.numbers_of(k, list(x)) for k, x in zip(("user", "item"), zip(*pairs)))  # noqa: B905
    with torch.no_grad():
        whole = trained.model.full_sort_predict(Interaction({"user_id": torch.from_numpy(users)}))
    wanted = whole.view(len(pairs), -1)[range(len(pairs)), items].tolist()
    assert [one["score"] for one in found] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert {one["by"] for one in found} == {"model"}


# -- new items ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def new_items(world):
    """What `recommend` says of a picture with annotations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world.folder)
        shutil.copy(world.home / "images" / "extra.png", "photo.png")
        (world.folder / "new.csv").write_text(
            "item_id,image_path,annotations\nnew,photo.png,t1 t5\n"
        )
        return recommend(world.content, topk=30, new_items="new.csv", neighbours=9)


def test_a_new_item_gets_the_users_and_neighbours_of_recommend(client, world, new_items):
    with (world.home / "images" / "extra.png").open("rb") as picture:
        form = {"annotations": "t1 t5 strange", "topk": "30", "neighbours": "9"}
        answer = client.post("/api/new_item", files={"picture": picture}, data=form).json()
    assert answer["ignored"] == ["strange"]
    for kind, name, key in (("user", "users", "user"), ("item", "nearest", "item")):
        rows = new_items[new_items["kind"] == kind]
        assert [one[key] for one in answer[name]] == rows["id"].tolist()
        scores = [one["score"] for one in answer[name]]
        assert scores == pytest.approx(rows["score"].tolist(), rel=1e-4, abs=1e-6)


def test_an_item_of_the_file_that_the_model_does_not_know_is_scored_by_content(client, new_items):
    users = new_items[new_items["kind"] == "user"].set_index("id")["score"]
    pairs = [{"user": u, "item": "extra"} for u in users.index] + [{"user": "u1", "item": "i2"}]
    found = post(client, "/api/score", pairs=pairs)["scores"]
    assert [one["by"] for one in found] == ["content"] * len(users) + ["model"]
    scores = [one["score"] for one in found[:-1]]
    assert scores == pytest.approx(users.tolist(), rel=1e-4, abs=1e-6)


def test_annotations_alone_make_a_new_item(client, world):
    answer = client.post("/api/new_item", data={"annotations": "t1 t5", "neighbours": "50"}).json()
    assert answer["nearest_by"] == "annotations"
    wanted = {}
    for item, (_, words) in rows_of(world).items():
        common = len({"t1", "t5"} & set(words.split()))
        if common and item != "extra":
            wanted[item] = common / len({"t1", "t5"} | set(words.split()))
    assert {one["item"]: one["score"] for one in answer["nearest"]} == pytest.approx(wanted)


def test_similar_items_are_those_of_numpy(client, world, models):
    trained = models[0].trained
    rows, known = rows_of(world), trained.item_ids.tolist()

    def nearest(by: str) -> dict[str, float]:
        answer = client.get("/api/similar", params={"item": "i3", "by": by, "topk": 100})
        items = answer.json()["items"]
        assert [i["score"] for i in items] == sorted((i["score"] for i in items), reverse=True)
        return {i["item"]: i["score"] for i in items}

    own = set(rows["i3"][1].split())
    words = {i: set(rows[i][1].split()) for i in known if i in rows and i != "i3"}
    jaccard = {i: len(own & w) / len(own | w) for i, w in words.items() if own & w}
    assert nearest("annotations") == pytest.approx(jaccard)

    features = trained.dataset.content.pictures.features.numpy().astype(float)
    lengths = np.linalg.norm(features, axis=1)
    at = known.index("i3")
    cosines = {
        i: features[k] @ features[at] / lengths[k] / lengths[at]
        for k, i in enumerate(known)
        if lengths[k] and k != at
    }
    assert nearest("picture") == pytest.approx(cosines, abs=1e-5)

    users = torch.from_numpy(np.flatnonzero(trained.trained_users))
    with torch.no_grad():
        scores = trained.model.full_sort_predict(Interaction({"user_id": users}))
    scores = scores.view(len(users), -1)[:, 1:].numpy().astype(float)
    correlation = np.corrcoef((scores - scores.mean(1, keepdims=True)).T)[at - 1]
    wanted = {i: correlation[k] for k, i in enumerate(known[1:]) if i != "i3"}
    assert nearest("model") == pytest.approx(wanted, abs=1e-4)


def test_users_are_found_by_prefix(client):
    found = client.get("/api/users", params={"prefix": "u1"}).json()
    assert found == {"users": ["u1", *(f"u1{k}" for k in range(10))], "total": 11}
    assert client.get("/api/users", params={"limit": 2}).json() == {
        "users": ["u0", "u1"],
        "total": 30,
    }
    assert client.get("/api/users", params={"prefix": "x"}).json()["total"] == 0


def test_the_models_say_what_they_read(client):
    first, second = client.get("/api/models").json()["models"]
    assert (first["new_items"], second["new_items"]) == (["picture", "annotations"], [])
    assert (first["users"], first["dataset"]) == (30, "tiny")
    assert client.get("/api/health").json() == {"status": "ok", "models": 2}


def test_answers_have_the_form_that_openapi_promises(client):
    from recbole_cierec.serving.web import shapes

    body = {"users": ["u1", "nobody"], "history": True, "topk": 3}
    shapes.Lists.model_validate(post(client, "/api/recommend", **body))
    shapes.Scores.model_validate(post(client, "/api/score", pairs=[{"user": "u1", "item": "i2"}]))
    shapes.Similar.model_validate(client.get("/api/similar", params={"item": "i3"}).json())
    answer = client.post("/api/new_item", data={"annotations": "t1"}).json()
    shapes.NewItemAnswer.model_validate(answer)
    shapes.Models.model_validate(client.get("/api/models").json())
    api = client.get("/openapi.json").json()
    assert {"/api/health", "/api/recommend", "/api/new_item"} <= set(api["paths"])


# -- hostile input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "body"),
        (b"{", 422, "JSON"),
        (b"[]", 422, "valid dictionary"),
        (b'{"users": []}', 422, "at least 1"),
        (b'{"users": ["u1"], "topk": NaN}', 422, "topk: Input should be"),
        (b'{"users": ["u1"], "topk": 0}', 422, "topk"),
        (b'{"users": ["u1"], "topk": 1e999}', 422, "topk"),
        (b'{"users": ["u1"], "topk": true}', 422, "topk"),
        (b'{"users": [1]}', 422, "valid string"),
        (b'{"users": ["\\ud800"]}', 422, "valid"),
        (b'{"users": ["u1"], "mode": "x"}', 422, "mode: Extra inputs"),
        (b'{"users": ["u1"], "model": "../x"}', 404, "no model '../x'"),
        (json.dumps({"users": ["x" * 300]}).encode(), 422, "at most 256"),
        (json.dumps({"users": ["u1"] * 10_000}).encode(), 422, f"at most {MOST_USERS}"),
        (json.dumps({"users": ["u1"] * 1000, "topk": 99}).encode(), 422, f"{MOST_ROWS:,}"),
        (b"[" * 100_000, 400, "parsing"),
        (b" " * 2_000_000, 413, "longer than"),
    ],
    ids=range(17),
)
def test_malformed_requests_are_one_problem(client, body, status, said):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/recommend", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "hint"}
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_a_body_without_length_is_refused_while_it_arrives(client, monkeypatch):
    sent = []

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        for _ in range(1000):
            sent.append(1)
            yield b"\0" * 2**16

    kept = []
    monkeypatch.setattr("recbole_cierec.serving.web.guard.MOST_UPLOAD", 2**20)
    monkeypatch.setattr("recbole_cierec.serving.web.app._stored", lambda *a: kept.append(a))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/new_item", content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert "longer than 1,048,576 bytes" in answer.json()["error"]
    assert not kept


def bomb() -> bytes:
    """A PNG whose header promises 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (bomb, "pixels"),
        (lambda: b"text", "not a JPEG"),
        (lambda: b"", "empty"),
        (None, "no picture"),
    ],
)
def test_what_is_no_picture_is_refused(client, picture, said):
    files = {} if picture is None else {"picture": ("../../x.png", picture())}
    answer = client.post("/api/new_item", files=files, data={"annotations": "zz"})
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert "/tmp" not in answer.text  # noqa: S108


def test_a_model_without_content_says_so(client):
    form = {"annotations": "t1", "model": "BPR"}
    answer = client.post("/api/new_item", data=form)
    assert answer.status_code == 409
    assert "BPR does not score items by their content" in answer.json()["error"]
    body = {"pairs": [{"user": "u1", "item": "extra"}], "model": "BPR"}
    assert client.post("/api/score", json=body).status_code == 409
    for item in ("no", "../../etc/passwd"):
        answer = client.post("/api/score", json={"pairs": [{"user": "u1", "item": item}]})
        assert answer.status_code == 404
    answer = client.get("/api/similar", params={"item": "i3", "by": "picture", "model": "BPR"})
    assert "BPR reads no pictures" in answer.json()["error"]


# -- pictures and pages ------------------------------------------------------------------------


def test_thumbnails_are_of_the_items_pictures(client, world):
    answer = client.get("/api/picture/i3")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).resize((32, 32)), float)
    drawn = np.asarray(Image.open(world.home / "images" / "3.png"), float)
    assert np.corrcoef(shown.ravel(), drawn.ravel())[0, 1] > 0.9
    assert client.get("/api/picture/i37").json()["error"] == (
        "no picture of 'i37': the item has no picture"
    )


@pytest.mark.parametrize(
    "item", ["..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "i3%00", "images/3.png", "..", "é" * 99]
)
def test_no_id_leads_to_a_file(client, item):
    answer = client.get(f"/api/picture/{item}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "hint"}


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "folder link", "pipe"])
def test_no_path_leads_out_of_the_data_folder(client, models, world, kind, monkeypatch):
    secret = world.folder / "photo-of-me.png"
    secret.write_bytes((world.home / "images" / "3.png").read_bytes())
    link = world.home / f"{kind}.png"
    path = {"parent": "../../photo-of-me.png", "absolute": str(secret)}.get(kind, link.name)
    if kind == "link" and not link.exists():
        link.symlink_to(secret)
    elif kind == "folder link" and not link.exists():
        link.symlink_to(world.folder)
        path = f"{link.name}/photo-of-me.png"
    elif kind == "pipe" and not link.exists():
        os.mkfifo(link)
    catalogue = models[0].catalogue
    number = models[0].number_of("i4")
    paths = [path if k == number else cell for k, cell in enumerate(catalogue.pictures)]
    monkeypatch.setattr(catalogue, "pictures", paths)
    catalogue.thumbnail.cache_clear()
    answer = client.get("/api/picture/i4")
    assert answer.status_code == 404
    said = "not a regular file" if kind == "pipe" else "leaves the picture folder"
    assert said in answer.json()["error"]
    row = {"item_id": "out", "image_path": path, "annotations": "t1"}
    monkeypatch.setitem(catalogue._unlisted, "out", row)
    answer = client.post("/api/score", json={"pairs": [{"user": "u1", "item": "out"}]})
    assert (answer.status_code, said in answer.text) == (422, True)


def test_every_answer_forbids_scripts_of_others(client):
    for path in ("/", "/docs", "/app.js", "/api/health", "/nothing", "/api/picture/no"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text + client.get("/docs").text + client.get("/style.css").text
    assert "//" not in page.replace("</", "").replace("/*", "")
    assert " style=" not in page
    assert " onclick" not in page
    for script in ("/app.js", "/docs.js"):
        assert not {"innerHTML", "eval(", "insertAdjacentHTML", "document.write"} & set(
            client.get(script).text.replace(".", " ").split()
        )


def test_pages_of_other_sites_are_refused(client):
    assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 400
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/users", headers=cross).status_code == 403
    assert client.get("/", headers=cross).status_code == 200  # a link may lead here
    assert client.get("/api/recommend").status_code == 405
