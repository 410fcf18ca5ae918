"""The page and the JSON API, as an ASGI application."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from recbole_cierec import __version__
from recbole_cierec.errors import PictureError
from recbole_cierec.serving.web import shapes
from recbole_cierec.serving.web.batches import Batches, Worker
from recbole_cierec.serving.web.guard import Guard, add_handlers, json_answer
from recbole_cierec.serving.web.refusal import Refusal
from recbole_cierec.serving.web.served import ListRequest, ServedModel
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

STATIC = {  # path -> file in the folder static and its type
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/docs.js": ("docs.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": shapes.Problem, "description": "Not understood"},
    404: {"model": shapes.Problem, "description": "Unknown model or item"},
    413: {"model": shapes.Problem, "description": "Too long"},
    422: {"model": shapes.Problem, "description": "Not possible"},
    503: {"model": shapes.Problem, "description": "Busy"},
}
DESCRIPTION = """\
Recommendations of trained models. Every error is JSON with `error` (what is wrong) and `hint` (what
to do). All computation is local, and nothing is stored."""

Topk = Annotated[int, Query(ge=1, le=shapes.MOST_TOPK)]
ModelQuery = Annotated[str | None, Query(max_length=shapes.MOST_ID)]


class Service:
    """Models and the threads that compute their answers.

    Args:
        models: At least one, of distinct names.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = {model.name: model for model in models}
        self.torch, self.pictures = Worker("torch"), Worker("pictures")
        self._lists = {
            model.name: Batches(self.torch, _answers(model), _users_of, model.batch_users)
            for model in models
        }

    def model(self, name: str | None) -> ServedModel:
        """A model by name; the first for None.

        Raises:
            Refusal: There is none of that name.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refusal(404, f"there is no model '{name}'", f"use {', '.join(self.models)}")
        return self.models[name]

    async def lists(self, name: str | None, request: ListRequest) -> Response:
        """Lists of users, computed with those of requests that wait at the same time."""
        return await self._lists[self.model(name).name].ask(request)

    async def compute(self, call: Callable[[], dict[str, Any]]) -> Response:
        """The answer of a call of torch, as JSON."""
        return await self.torch.run(lambda: json_answer(call()))

    def close(self) -> None:
        self.torch.close()
        self.pictures.close()


def _answers(model: ServedModel) -> Callable[[Sequence[ListRequest]], list[Response]]:
    def answer(requests: Sequence[ListRequest]) -> list[Response]:
        lists = model.recommend(requests)
        return [json_answer({"model": model.name, "lists": each}) for each in lists]

    return answer


def _users_of(request: ListRequest) -> int:
    return len(request.users)


def make_app(models: Sequence[ServedModel], hosts: Sequence[str]) -> ASGIApp:
    """The application.

    Args:
        models: What it serves.
        hosts: Names by which browsers may reach it. A page of another site, whose name was made to
            lead here, is refused.
    """
    service = Service(models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        yield
        service.close()

    app = FastAPI(
        title="recbole_cierec",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts of other hosts; ours is static/docs.html
        redoc_url=None,
        responses=PROBLEMS,
    )
    add_handlers(app)
    _add_pages(app)
    _add_information(app, service)
    _add_scores(app, service)
    _add_new_item(app, service)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Guard(app)


def _add_pages(app: FastAPI) -> None:
    folder = files(__package__) / "static"
    for path, (name, kind) in STATIC.items():
        app.add_route(path, _page((folder / name).read_bytes(), kind), include_in_schema=False)


def _page(content: bytes, kind: str) -> Callable[[Request], Response]:
    def show(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return show


def _add_information(app: FastAPI, service: Service) -> None:
    @app.get("/api/health", response_model=shapes.Health, summary="Whether the server answers")
    async def health() -> Response:
        return json_answer({"status": "ok", "models": len(service.models)})

    @app.get("/api/models", response_model=shapes.Models, summary="The models")
    async def models() -> Response:
        return json_answer({"models": [m.described() for m in service.models.values()]})

    @app.get("/api/users", response_model=shapes.Users, summary="Users by the start of their id")
    async def users(
        prefix: Annotated[str, Query(max_length=shapes.MOST_ID)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        model: ModelQuery = None,
    ) -> Response:
        found, total = service.model(model).catalogue.users(prefix, limit)
        return json_answer({"users": found, "total": total})

    @app.get(
        "/api/picture/{item:path}",
        summary="A small JPEG of an item's picture",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    async def picture(
        item: Annotated[str, InPath(max_length=shapes.MOST_ID)], model: ModelQuery = None
    ) -> Response:
        served = service.model(model)
        number = served.number_of(item)
        try:
            jpeg = await service.pictures.run(served.catalogue.thumbnail, number)
        except PictureError as error:
            raise Refusal(
                404, f"no picture of '{item}': {error.reason}", "check image_path in NAME.item"
            ) from error
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)


def _add_scores(app: FastAPI, service: Service) -> None:
    @app.post("/api/recommend", response_model=shapes.Lists, summary="Lists of items for users")
    async def recommend(body: shapes.RecommendBody) -> Response:
        request = ListRequest(body.users, body.topk, body.with_seen, body.history)
        return await service.lists(body.model, request)

    @app.post("/api/score", response_model=shapes.Scores, summary="Scores of users for items")
    async def score(body: shapes.ScoreBody) -> Response:
        """An item that the model does not know is scored by its content in NAME.item, where the
        model reads it."""
        served = service.model(body.model)
        pairs = [(pair.user, pair.item) for pair in body.pairs]
        return await service.compute(lambda: {"model": served.name, "scores": served.score(pairs)})

    @app.get("/api/similar", response_model=shapes.Similar, summary="Known items like a known one")
    async def similar(
        item: Annotated[str, Query(min_length=1, max_length=shapes.MOST_ID)],
        by: Literal["model", "picture", "annotations"] = "model",
        topk: Topk = 20,
        model: ModelQuery = None,
    ) -> Response:
        """By the model: the correlation, over users, of the items' scores less each user's mean. By
        picture: the cosine of features. By annotations: common tokens by all tokens of the two."""
        served = service.model(model)
        return await service.compute(
            lambda: {"model": served.name, **served.similar(item, by, topk)}
        )


def _add_new_item(app: FastAPI, service: Service) -> None:
    @app.post(
        "/api/new_item", response_model=shapes.NewItemAnswer, summary="Who would like a new item"
    )
    async def new_item(
        picture: Annotated[UploadFile | None, File()] = None,
        annotations: Annotated[str, Form(max_length=shapes.MOST_TEXT)] = "",
        topk: Annotated[int, Form(ge=1, le=shapes.MOST_TOPK)] = 20,
        neighbours: Annotated[int, Form(ge=1, le=shapes.MOST_TOPK)] = 12,
        model: Annotated[str | None, Form(max_length=shapes.MOST_ID)] = None,
    ) -> Response:
        """Scores are trained to compare items for one user; across users they are a guide."""
        served = service.model(model)

        def answer() -> dict[str, Any]:
            with TemporaryDirectory(prefix="recbole_cierec-") as folder:
                path = None if picture is None else _stored(picture, Path(folder), served)
                found = served.new_item(path, annotations, topk, neighbours)
            return {"model": served.name, **found}

        return await service.compute(answer)


def _stored(picture: UploadFile, folder: Path, served: ServedModel) -> Path:
    """The picture as a file, decoded once to see that it is one."""
    path = folder / "picture"
    with path.open("wb") as stream:
        shutil.copyfileobj(picture.file, stream)
    try:
        decode_picture(path, PictureSpec(8, max_pixels=served.trained.config["max_image_pixels"]))
    except PictureError as error:
        raise Refusal(
            422, f"the picture cannot be used: {error.reason}", "send a JPEG, PNG, WebP, GIF or BMP"
        ) from error
    return path
