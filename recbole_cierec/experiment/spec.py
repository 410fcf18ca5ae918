"""The file of an experiment, read and checked: docs/experiments.md describes each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_cierec.config.paths import given_path
from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.values import given_mapping
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.evaluation.names import LABELS
from recbole_cierec.terminal import shown
from recbole_cierec.tuning.search import PRUNERS, SAMPLERS

TOP = (
    "models datasets protocols seeds search overrides variants drop_below report keep_checkpoints "
    "title"
).split()
OF_MODEL = "name label keys search variants drop".split()
OF_DATASET = "name data_path keys".split()
OF_SEARCH = "seconds trials seed protocol sampler pruner".split()
OF_REPORT = "baseline metrics groups digits".split()
GROUPS = ("all", "cold", "warm", "item_unseen", "among_cold")
METRICS = ("recall@10", "ndcg@10")
_REQUIRED = ("models", "datasets", "seeds")
_SEED_LIMIT = 2**32  # of numpy

Keys = dict[str, Any]


@dataclass(frozen=True)
class ModelSpec:
    """One row of the tables.

    Attributes:
        name: As for ``--model``.
        label: Its name in tables; unique.
        keys: Keys of its own; they are never searched.
        search: ``default``, a path, or ranges; None: its settings are not searched.
        variant: The label of the variant; empty without variants.
        value: The value of the one key that varies, if it is a number: the x-axis of a plot.
        varied: The name of that key.
        family: The label without the variant.
        drop: Whether ``drop_below`` may drop it.
    """

    name: str
    label: str
    keys: Keys = field(default_factory=dict)
    search: str | Keys | None = None
    variant: str = ""
    value: float | None = None
    varied: str = ""
    family: str = ""
    drop: bool = True


@dataclass(frozen=True)
class DatasetSpec:
    """A data set and keys for all its runs."""

    name: str
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """What each search may use.

    Attributes:
        seconds: Processor seconds after which no further trial starts; None: no limit.
        trials: Most trials.
        seed: Seed of all trials.
        protocol: The protocol whose validation decides; empty: each protocol has its own search.
        sampler: As for ``tune``.
        pruner: What stops hopeless trials: ``median``, ``hyperband`` or ``none``.
    """

    seconds: float | None
    trials: int
    seed: int
    protocol: str
    sampler: str = "random"
    pruner: str = "median"


@dataclass(frozen=True)
class Report:
    """What the tables show; metrics and groups as in a run's result (``recall@10_cold``)."""

    baseline: str
    metrics: tuple[str, ...] = METRICS
    groups: tuple[str, ...] = GROUPS
    digits: int = 2


@dataclass(frozen=True)
class Experiment:
    """A checked file.

    Attributes:
        given: The keys of ``--set``, which override all others.
        drop_below: A model whose validation with the first seed is below this share of the best
            model's has no further seeds, unless it is the baseline or has ``drop: False``; None:
            all seeds run.
    """

    path: Path
    title: str
    models: tuple[ModelSpec, ...]
    datasets: tuple[DatasetSpec, ...]
    protocols: dict[str, Keys]
    seeds: tuple[int, ...]
    budget: Budget | None
    overrides: Keys
    given: Keys
    report: Report
    keep_checkpoints: bool
    drop_below: float | None = None

    @property
    def kept(self) -> frozenset[str]:
        """Labels of the models that ``drop_below`` does not drop."""
        kept = {model.label for model in self.models if not model.drop}
        return frozenset({*kept, self.report.baseline})


def find_file(name: str | Path) -> Path:
    """The file of an experiment: a path, or the name of one in ``properties/experiments``.

    Raises:
        ConfigError: There is neither.
    """
    path = given_path("file", name)
    if path.is_file():
        return path
    folder = properties_dir() / "experiments"
    shipped = sorted(file.stem for file in folder.glob("*.yaml"))
    if str(name) in shipped:
        return folder / f"{name}.yaml"
    hint = nearest(str(name), shipped) or f"; shipped ones are {', '.join(shipped)}"
    raise ConfigError(f"{name}: there is no such experiment file{hint}")


def read_experiment(name: str | Path, given: Mapping[str, Any] | None = None) -> Experiment:
    """Read a file.

    Args:
        name: See :func:`find_file`.
        given: Keys of ``--set``, for every run; they override all others.

    Raises:
        ConfigError: A part is missing, unknown or of the wrong kind; the line names it.
    """
    path = find_file(name)
    return _Reader(path).experiment(read_yaml(path), given_mapping("keys", given))


class _Reader:
    """Checks the parts of a file; each error begins with the file and the part."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def experiment(self, content: Keys, given: Keys) -> Experiment:
        self.known(content, TOP, "")
        for key in _REQUIRED:
            if key not in content:
                raise self.error("", f"'{key}' is missing; docs/experiments.md has an example")
        seeds = self.seeds(content["seeds"])
        protocols = self.protocols(content.get("protocols", {"default": {}}))
        searched = content.get("search") is not None
        models = self.models(content, searched)
        overrides = self.keys(content.get("overrides", {}), "overrides")
        keep = self.flag(content.get("keep_checkpoints", False), "keep_checkpoints")
        share = content.get("drop_below")
        if share is not None and (type(share) not in (int, float) or not 0 <= share <= 1):
            raise self.error("drop_below", f"must be a share from 0 to 1, not {shown(share)}")
        return Experiment(
            path=self.path,
            title=str(content.get("title", self.path.stem)),
            models=tuple(models),
            datasets=self.datasets(content["datasets"]),
            protocols=protocols,
            seeds=seeds,
            budget=self.budget(content["search"], seeds, protocols) if searched else None,
            overrides=overrides,
            given=given,
            report=self.report(content.get("report", {}), [one.label for one in models]),
            keep_checkpoints=keep,
            drop_below=share,
        )

    # ------------------------------------------------------------------------------ parts

    def flag(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise self.error(where, f"must be True or False, not {shown(value)}")
        return value

    def models(self, content: Keys, searched: bool) -> list[ModelSpec]:
        found: list[ModelSpec] = []
        for place, entry in enumerate(self.list(content["models"], "models")):
            where = f"models[{place}]"
            entry = {"name": entry} if isinstance(entry, str) else self.keys(entry, where)
            self.known(entry, OF_MODEL, where)
            name = self.text(entry.get("name"), f"{where}: name")
            model = ModelSpec(
                name=name,
                label=self.text(entry.get("label", name), f"{where}: label"),
                keys=self.keys(entry.get("keys", {}), f"{where}: keys"),
                search=self.space(entry.get("search", "default"), where) if searched else None,
                drop=self.flag(entry.get("drop", True), f"{where}: drop"),
            )
            if not searched and entry.get("search", "none") != "none":
                raise self.error(where, "has 'search', but the file has no budget: add "
                                 "'search: {trials: N, seconds: S}'")  # fmt: skip
            variants = entry.get("variants", content.get("variants", {}))
            found += self.variants(model, variants, f"{where}: variants")
        labels = [model.label for model in found]
        for label in labels:
            if labels.count(label) > 1:
                raise self.error("models", f"two have the label '{label}'; set 'label' of one")
        return found

    def variants(self, model: ModelSpec, entries: Any, where: str) -> list[ModelSpec]:
        found = []
        for label, keys in self.keys(entries, where).items():
            keys = self.keys(keys, f"{where}: {label}")
            numbers = [key for key, value in keys.items() if type(value) in (int, float)]
            varied = numbers[0] if len(numbers) == len(keys) == 1 else ""
            found.append(
                replace(
                    model,
                    label=f"{model.label}, {label}",
                    keys=merged(model.keys, keys),
                    variant=label,
                    value=float(keys[varied]) if varied else None,
                    varied=varied,
                    family=model.label,
                )
            )
        return found or [replace(model, family=model.label)]

    def space(self, value: Any, where: str) -> str | Keys | None:
        if value in (None, "none", False):
            return None
        if isinstance(value, dict) and value:
            return value
        if value == "default" or (isinstance(value, str) and Path(value).is_file()):
            return value
        raise self.error(where, "search must be default, none, an existing file of ranges or "
                         f"ranges, not {shown(value)}")  # fmt: skip

    def datasets(self, entries: Any) -> tuple[DatasetSpec, ...]:
        found = []
        for place, entry in enumerate(self.list(entries, "datasets")):
            where = f"datasets[{place}]"
            entry = {"name": entry} if isinstance(entry, str) else self.keys(entry, where)
            self.known(entry, OF_DATASET, where)
            keys = self.keys(entry.get("keys", {}), f"{where}: keys")
            if "data_path" in entry:
                keys = {**keys, "data_path": entry["data_path"]}
            found.append(DatasetSpec(self.text(entry.get("name"), f"{where}: name"), keys))
        self.refuse_twice([one.name for one in found], "datasets")
        return tuple(found)

    def protocols(self, entries: Any) -> dict[str, Keys]:
        entries = self.keys(entries, "protocols")
        if not entries:
            raise self.error("protocols", "needs at least one name with its keys")
        return {name: self.keys(keys, f"protocols: {name}") for name, keys in entries.items()}

    def seeds(self, values: Any) -> tuple[int, ...]:
        for value in self.list(values, "seeds"):
            if type(value) is not int or not 0 <= value < _SEED_LIMIT:
                raise self.error("seeds", f"must be whole numbers from 0, not {shown(value)}")
        self.refuse_twice(values, "seeds")
        return tuple(values)

    def budget(self, entry: Any, seeds: Sequence[int], protocols: Keys) -> Budget:
        entry = self.keys(entry, "search")
        self.known(entry, OF_SEARCH, "search")
        seconds = entry.get("seconds")
        if seconds is not None and (type(seconds) not in (int, float) or seconds <= 0):
            raise self.error("search", f"seconds must be a number above 0, not {shown(seconds)}")
        trials, seed = entry.get("trials", 20), entry.get("seed", seeds[0])
        for key, value in (("trials", trials), ("seed", seed)):
            if type(value) is not int or value < (key == "trials"):
                raise self.error("search", f"{key} must be a whole number, not {shown(value)}")
        choices = {"protocol": (*protocols, "each"), "sampler": SAMPLERS, "pruner": PRUNERS}
        defaults = {"protocol": next(iter(protocols)), "sampler": "random", "pruner": "median"}
        given = {key: entry.get(key, default) for key, default in defaults.items()}
        for key, known in choices.items():
            if given[key] not in known:
                raise self.error("search", f"{key} must be one of {', '.join(known)}, not "
                                 f"{shown(given[key])}")  # fmt: skip
        if given["protocol"] == "each":
            given["protocol"] = ""
        return Budget(seconds, trials, seed, **given)

    def report(self, entry: Any, labels: list[str]) -> Report:
        entry = self.keys(entry, "report")
        self.known(entry, OF_REPORT, "report")
        baseline = entry.get("baseline", labels[0])
        if baseline not in labels:
            hint = nearest(str(baseline), labels) or f"; they are {', '.join(labels)}"
            raise self.error("report", f"baseline '{baseline}' is no label of a model{hint}")
        parts: dict[str, tuple[str, ...]] = {}
        for key, default in (("metrics", METRICS), ("groups", GROUPS)):
            words = self.list(entry.get(key, list(default)), f"report: {key}")
            parts[key] = tuple(self.text(word, f"report: {key}").lower() for word in words)
            self.refuse_twice(parts[key], f"report: {key}")  # each test would be corrected for both
        for group in parts["groups"]:
            if group not in LABELS:
                hint = nearest(group, LABELS) or f"; they are {', '.join(LABELS)}"
                raise self.error("report", f"there is no group '{group}'{hint}")
        digits = entry.get("digits", 2)
        if type(digits) is not int or not 0 <= digits <= 6:
            raise self.error("report", f"digits must be from 0 to 6, not {shown(digits)}")
        return Report(baseline, parts["metrics"], parts["groups"], digits)

    # ------------------------------------------------------------------------------ kinds

    def error(self, where: str, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {f'{where}: ' if where else ''}{what}")

    def known(self, entry: Keys, names: Sequence[str], where: str) -> None:
        for key in entry:
            if key not in names:
                hint = nearest(str(key), names) or f"; known are {', '.join(names)}"
                raise self.error(where, f"unknown key '{key}'{hint}")

    def keys(self, value: Any, where: str) -> Keys:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.error(where, f"must be keys with values, not {shown(value)}")
        return value

    def list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(where, f"must be a list, not {shown(value)}")
        if not value:
            raise self.error(where, "is empty; list at least one")
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise self.error(where, f"must be a name, not {shown(value)}")
        if not value.strip():
            raise self.error(where, "is empty; give a name")
        return value

    def refuse_twice(self, values: Sequence[Any], where: str) -> None:
        for value in values:
            if list(values).count(value) > 1:
                raise self.error(where, f"{value} is listed twice")


def merged(*layers: Mapping[str, Any]) -> Keys:
    """Later layers win; ``eval_args`` are merged key by key, as in ``Config``."""
    found: Keys = {}
    for layer in layers:
        args, more = found.get("eval_args"), layer.get("eval_args")
        found |= layer
        if isinstance(args, Mapping):
            found["eval_args"] = {**args, **more} if isinstance(more, Mapping) else more or args
    return found
