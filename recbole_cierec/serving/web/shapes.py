"""Bodies of requests and answers, with their limits; FastAPI makes /openapi.json from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_ID = 256  # characters
MOST_TEXT = 8192  # characters of annotations
MOST_USERS = MOST_PAIRS = 1000  # of a request
MOST_TOPK = 1000
MOST_ROWS = 50_000  # users times topk

Id = Annotated[str, Field(min_length=1, max_length=MOST_ID)]
ModelName = Annotated[
    str | None, Field(max_length=MOST_ID, description="a name of /api/models; the first if absent")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class RecommendBody(_Body):
    """Users to recommend to."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MOST_USERS)]
    topk: Annotated[int, Field(ge=1, le=MOST_TOPK)] = 20
    model: ModelName = None
    with_seen: Annotated[bool, Field(description="keep items of training and validation")] = False
    history: Annotated[bool, Field(description="add the users' newest items")] = False

    @model_validator(mode="after")
    def _bounded(self) -> RecommendBody:
        if len(self.users) * self.topk > MOST_ROWS:
            raise ValueError(f"users times topk is above {MOST_ROWS:,}; send several requests")
        return self


class Pair(_Body):
    """A user and an item."""

    user: Id
    item: Id


class ScoreBody(_Body):
    """Pairs to score."""

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MOST_PAIRS)]
    model: ModelName = None


class Problem(BaseModel):
    """Any answer of HTTP 4xx."""

    error: Annotated[str, Field(description="what is wrong")]
    hint: Annotated[str, Field(description="what to do")]


class Health(BaseModel):
    status: Literal["ok"]
    models: int


class ModelInfo(BaseModel):
    name: str
    model: str
    dataset: str
    users: int
    items: int
    interactions: Annotated[int, Field(description="of the training part")]
    new_items: Annotated[list[str], Field(description="what new items are scored by; may be empty")]


class Models(BaseModel):
    models: list[ModelInfo]


class Users(BaseModel):
    users: Annotated[list[str], Field(description="ids with the prefix, in order")]
    total: int


class Item(BaseModel):
    item: str
    title: str
    annotations: Annotated[list[str], Field(description="as in NAME.item, and as requests take")]
    labels: Annotated[list[str], Field(description="the annotations in words, for people")]
    picture: Annotated[bool, Field(description="whether /api/picture/ITEM is worth asking for")]


class RankedItem(Item):
    rank: int
    score: float


class UserList(BaseModel):
    user: str
    user_status: Literal["trained", "no training interaction", "unknown"]
    items: list[RankedItem]
    history: list[Item] | None = None
    history_total: int | None = None
    list: Annotated[
        Literal["personal", "shared", "popular"],
        Field(
            description="shared: the model's one list for users without training interactions; "
            "popular: items by their number of training interactions, which are the scores"
        ),
    ]


class Lists(BaseModel):
    model: str
    lists: list[UserList]


class Score(BaseModel):
    user: str
    item: str
    score: float
    by: Literal["model", "content", "popularity"]


class Scores(BaseModel):
    model: str
    scores: list[Score]


class Similar(BaseModel):
    model: str
    of: Item
    by: str
    items: list[RankedItem]


class RankedUser(BaseModel):
    rank: int
    user: str
    score: float


class NewItemAnswer(BaseModel):
    model: str
    reads: Annotated[list[str], Field(description="what the model scores new items by")]
    ignored: Annotated[list[str], Field(description="annotations that the model does not know")]
    users: list[RankedUser]
    nearest: list[RankedItem]
    nearest_by: Literal["picture", "annotations"]
