"""RecBole's Config with this package's layers, and every key and value checked.

Later layers win:

1. RecBole's ``overall.yaml`` and ``dataset/sample.yaml``,
2. this package's ``properties/overall.yaml``,
3. RecBole's files of the model, the data set and the model type, except for the protocol (below),
4. this package's ``properties/model/NAME.yaml`` (or, of a model outside the package, the files of
   its parents and the defaults in ``keys``), then ``properties/dataset/NAME.yaml``,
5. ``NAME.yaml`` in the data set's folder, which converters write for what data need,
6. the user's files in order, ``config_dict``, the command line.

The protocol rule: RecBole's files of layer 3 may add what a model cannot run without
(``repeatable`` for sequential models, ``kg`` files for knowledge models), but not choose the data,
the split, the negatives or the evaluation, so that all models are compared on equal terms. Those
keys have the role protocol. ``load_col`` is divided: layer 2 has the columns of NAME.inter; other
atomic files that RecBole loads for a model stay. Sequential models with a CE loss have no
negatives, and RecBole refuses any, so ``train_neg_sample_args`` is null for them unless the user
sets it.

``eval_args`` is merged key by key in layers 4 to 6: ``eval_args: {mode: uni100}`` keeps the split,
wherever it is given.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config as RecBoleConfig

import recbole_cierec.evaluation.metrics  # noqa: F401  registers metrics
from recbole_cierec.config.compat import ConfigCompat, recbole_errors
from recbole_cierec.config.data_keys import check_data_keys
from recbole_cierec.config.derived import adjust, no_reader_of_softmax
from recbole_cierec.config.eval_args import checked_eval_args, divide_split
from recbole_cierec.config.keys import (
    CONFIG_DICT,
    check_keys,
    declared_by,
    outside_defaults,
    refuse_unknown,
)
from recbole_cierec.config.metrics import check_metrics
from recbole_cierec.config.paths import CHECKPOINT, check_path, check_text, given_files
from recbole_cierec.config.properties import overall_defaults, own_files, property_files
from recbole_cierec.config.schema import KEYS, PLACE_KEYS, PROTOCOL_KEYS, Key, Role
from recbole_cierec.config.values import check_value, given_mapping
from recbole_cierec.config.yaml import SafeYamlLoader, parse_value, read_yaml
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.registry import (
    MODELS,
    get_model_class,
    known_name,
    model_spelling,
    outside_model,
    unknown_model,
)

__all__ = ["COMMAND_LINE", "Config", "property_files"]

DEFAULT_MODEL = "CIERec"
DEFAULT_DATASET = "demo"
COMMAND_LINE = "command line"
# Of the keys that a user gave, a checkpoint leaves out those that say where and how a run went.
_OF_RUN = frozenset(
    "model dataset resume checkpoint_dir use_gpu gpu_id state show_progress".split()
)

# Of the run, or what finds the folder.
_NOT_OF_FOLDER = frozenset("model dataset data_path config_files resume checkpoint_dir".split())


class Config(ConfigCompat, RecBoleConfig):
    """The configuration of one run.

    Unlike RecBole's it never reads ``sys.argv``: the program that has a command line passes it.
    ``config["key"]`` of a key that does not exist raises a ConfigError; a key that the model at
    hand does not have is None.

    Args:
        model: A model's name, ``module:Class``, or a class; None: the one that a file, dictionary
            or flag names, else CIERec.
        dataset: A data set's name; None: as above, else demo.
        config_file_list: The user's YAML files, later ones win.
        config_dict: Keys and values from Python.
        cmd_line: Keys and texts of the command line, from
            :func:`recbole_cierec.config.yaml.parse_command_line`.
        checkpoint: The state of a checkpoint, whose settings all of these override.

    Attributes:
        notes: Lines for the log, which does not exist yet at this point.
        unread: Those of the notes that say that the model does not read a key, by key.
        without_effect: These and those of values that the model does not read, by key.
        folder_file: The YAML file in the data set's folder that was read.
        origins: Key to the place of its effective value, for keys that a user gave.
        protocol: ``eval_args`` complete, before RecBole's part of it is separated: a cold split is
            still in it. Whatever trains for this run is configured with it.
        model_spelling: What finds the model again: its name, or ``module:Class``.

    Raises:
        ConfigError: For anything unknown, misspelt, of the wrong type or contradictory.
    """

    internal_config_dict: dict[str, Any]
    external_config_dict: dict[str, Any]

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Iterable[str | os.PathLike[str]] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        cmd_line: Mapping[str, Any] | None = None,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.origins: dict[str, str] = {}
        self._given: list[tuple[str, str]] = []
        self._eval_args: dict[str, Any] = {}
        self._flags = given_mapping("cmd_line", cmd_line)
        self._stored = {} if checkpoint is None else dict(checkpoint["given"])
        self._reads_folder = checkpoint is None  # which has what the run read there
        self._of_data: list[tuple[str, str]] = []
        self.folder_file: Path | None = None
        self._dataset_argument = dataset
        super().__init__(model, dataset, config_file_list, config_dict)
        if checkpoint is not None:
            self._restore(checkpoint["config"])

    def __getitem__(self, key: str) -> Any:
        values = self.final_config_dict
        if key not in values:
            refuse_unknown(key, values, self.model_class)
        return values.get(key)

    # -- what the user gives -------------------------------------------------------------------

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # RecBole appends to its own module's lists.
        self.parameters: dict[str, list[str]] = {k: list(v) for k, v in self.parameters.items()}

    def _build_yaml_loader(self) -> type[SafeYamlLoader]:
        return SafeYamlLoader

    def _load_config_files(self, file_list: Any) -> dict[str, Any]:
        values = self._note_origin(deepcopy(self._stored), CHECKPOINT)
        for file in given_files("config_file_list", file_list):
            values.update(self._note_origin(read_yaml(file), str(file)))
        return values

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
        # A copy: RecBole completes nested dictionaries in place.
        return self._note_origin(deepcopy(given_mapping(CONFIG_DICT, config_dict)), CONFIG_DICT)

    def _load_cmd_line(self) -> dict[str, Any]:
        values = {
            key: parse_value(value) if isinstance(value, str) else value
            for key, value in self._flags.items()
        }
        return self._note_origin(values, COMMAND_LINE)

    def _merge_external_config_dict(self) -> None:
        super()._merge_external_config_dict()
        if self._reads_folder:
            self.external_config_dict = {**self._of_folder(), **self.external_config_dict}

    def _of_folder(self) -> dict[str, Any]:
        """The keys of NAME.yaml in the data set's folder that the user does not give elsewhere."""
        name = str(self._choose("dataset", self._dataset_argument, DEFAULT_DATASET))
        home = str(self._choose("data_path", None, "dataset"))
        path = Path(home, name, f"{name}.yaml")
        try:
            found = Path(name).name == name and path.is_file()
        except (OSError, ValueError):
            found = False
        if not found:  # an invalid name is refused later
            return {}
        self.folder_file, values = path, read_yaml(path)
        for key in _NOT_OF_FOLDER & values.keys():
            raise ConfigError(f"{path}: '{key}' has no effect in a data set's folder; remove it")
        users = self.origins, self._given, self._eval_args
        self.origins, self._given, self._eval_args = {}, [], {}
        kept = {k: v for k, v in values.items() if k == "eval_args" or k not in users[0]}
        self._note_origin(kept, str(path))
        self._of_data, self._given = self._given, users[1]
        self.origins, self._eval_args = self.origins | users[0], self._eval_args | users[2]
        return kept

    def _note_origin(self, values: dict[str, Any], origin: str) -> dict[str, Any]:
        for key, value in values.items():
            if not isinstance(key, str):
                raise ConfigError(f"{origin}: the key {key!r} is not a name")
            check_text(key, value, origin)
            self.origins[key] = origin
            self._given.append((key, origin))
            if key == "eval_args":
                self._eval_args.update(checked_eval_args(value, origin))
        return values

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type, str]:
        model = self._choose("model", model, DEFAULT_MODEL)
        dataset = self._choose("dataset", dataset, DEFAULT_DATASET)
        for key, name in (("model", model), ("dataset", dataset)):
            check_text(key, name, "arguments")
        if not isinstance(dataset, str) or not dataset or Path(dataset).name != dataset:
            raise ConfigError(
                f"dataset '{dataset}' is not the name of a folder; give its place by data_path"
            )
        if isinstance(model, type):
            model_class = outside_model(model)
        elif isinstance(model, str):
            model_class = get_model_class(model)
        else:
            raise unknown_model(str(model))
        self._packaged = known_name(model_class) in MODELS
        self._outside = known_name(model_class) is None
        self.model_spelling = model_spelling(model_class)
        return model_class.__name__, model_class, dataset

    def _choose(self, key: str, given: Any, default: str) -> Any:
        if given is not None:
            return given
        value = self.external_config_dict.get(key)
        if self.origins.get(key) == COMMAND_LINE:
            value = self._flags[key]
        return default if value is None else value

    # -- the layers ----------------------------------------------------------------------------

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        path = Path(file)
        values = read_yaml(path)
        base = path.name == "overall.yaml" or path.parts[-2:] == ("dataset", "sample.yaml")
        (self._base if base else self._special).update(values)
        self.internal_config_dict.update(values)
        return values

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        self._base: dict[str, Any] = {}
        self._special: dict[str, Any] = {}
        self._declared = declared_by(model_class)
        super()._load_internal_config_dict(model, model_class, dataset)
        layers = {**self._base, **overall_defaults()}
        layers["load_col"] = {
            **{file: columns for file, columns in self._load_col().items() if file != "inter"},
            **layers["load_col"],
        }
        if self._outside:
            defaults, recboles = outside_defaults(model_class)
            self._special = recboles | self._special
            layers.update(defaults)
        for key, value in self._special.items():
            if key not in PROTOCOL_KEYS and key not in self._declared:
                layers[key] = value
        # The name of a class outside the package may be that of a model of the package.
        for path in own_files("" if self._outside else model, dataset):
            values = read_yaml(path)
            if "eval_args" in values:
                args = checked_eval_args(values["eval_args"], str(path))
                values["eval_args"] = {**layers["eval_args"], **args}
            layers.update(values)
        layers["MODEL_TYPE"] = self.internal_config_dict["MODEL_TYPE"]
        self.internal_config_dict = layers

    def _load_col(self) -> dict[str, Any]:
        return self._special.get("load_col") or {}

    def _get_final_config_dict(self) -> dict[str, Any]:
        known = self.internal_config_dict, self.model, self.model_class
        check_keys(self._of_data, *known)  # their keys serve any model: no notes
        self.unread = check_keys(self._given, *known)
        final = super()._get_final_config_dict()
        for key in self.external_config_dict:
            text = self._flags[key] if self.origins[key] == COMMAND_LINE else None
            final[key] = self.checked(key, final[key], self.origins[key], text)
        args = {**self.internal_config_dict["eval_args"], **self._eval_args}
        self.protocol = deepcopy(args)
        final["eval_args"] = args
        origin = self.origins.get("eval_args", "defaults")
        args["split"], final["strict_cold"] = divide_split(final, origin)
        self.without_effect = dict(self.unread)
        softmax = final.get("loss") == "softmax"
        if softmax and (why := no_reader_of_softmax(self.model, self.model_class)):
            self.without_effect["loss"] = why
        self.notes += self.without_effect.values()
        self.notes += adjust(final, self.external_config_dict, self.model, self.model_class)
        self.notes += check_data_keys(final, self.origins, self._eval_args)
        return final

    def declaration(self, key: str) -> Key:
        """What a key is for this model."""
        return self._declared.get(key) or KEYS.get(key) or Key(key)

    def checked(self, key: str, value: Any, origin: str, text: Any = None) -> Any:
        """A value of a key for this model, converted to the key's type.

        Args:
            key: Its name.
            value: As read.
            origin: Where it was given, for errors.
            text: On the command line, its text.

        Raises:
            ConfigError: It is of another type, none of the choices, or out of range.
        """
        declared = self.declaration(key)
        loose = key in self._special and not self._packaged and key not in self._declared
        default = self.internal_config_dict.get(key)
        text = text if isinstance(text, str) else None
        checked = check_value(declared, value, default, origin, text=text, loose=loose)
        check_path(declared, checked, origin)
        return checked

    # -- RecBole's own checks ------------------------------------------------------------------

    def _set_default_parameters(self) -> None:
        check_metrics(self.final_config_dict, self.origins)
        given_path = self.external_config_dict.get("data_path")
        with recbole_errors():
            super()._set_default_parameters()
        self._check_loss_type()
        self._check_direction()
        if self.dataset == "ml-100k" and given_path is not None:
            # RecBole would silently use its packaged copy.
            self.final_config_dict["data_path"] = os.path.join(given_path, self.dataset)

    def _check_loss_type(self) -> None:
        """Refuse a loss type that RecBole ignores: it decides what a batch must hold."""
        if "MODEL_INPUT_TYPE" not in self.final_config_dict:
            given = self.final_config_dict["loss_type"]
            origin = self.origins.get("loss_type", "defaults")
            raise ConfigError(f"{origin}: 'loss_type' must be one of CE, BPR, not {given!r}")

    def _check_direction(self) -> None:
        """Refuse another direction of a metric than RecBole's, which ignores the user's."""
        known = self.final_config_dict["valid_metric_bigger"]
        if self.external_config_dict.get("valid_metric_bigger", known) is not known:
            metric = self.final_config_dict["valid_metric"]
            raise ConfigError(
                f"{self.origins['valid_metric_bigger']}: valid_metric_bigger is {known} for "
                f"{metric}; remove the key"
            )

    def _check_device(self, on_gpu: bool) -> None:
        """Refuse a GPU that the user requests and torch does not find; RecBole uses the CPU."""
        settings = self.final_config_dict
        given = [f"{key}: {settings[key]}" for key in ("use_gpu", "gpu_id") if key in self.origins]
        names = [name for name in settings["gpu_id"].split(",") if name.strip() not in ("", "-1")]
        if not given or not settings["use_gpu"] or not (names or "use_gpu" in self.origins):
            return
        if not on_gpu:
            reason = "torch finds none" if names else "gpu_id names none"
        elif not torch.cuda.is_initialized() and torch.cuda.device_count() < len(names):
            reason = f"torch finds {torch.cuda.device_count()} of the {len(names)} in gpu_id"
        else:
            return
        raise ConfigError(
            f"{', '.join(given)} asks for a GPU, and {reason}; set use_gpu: False for the CPU"
        )

    def _set_train_neg_sample_args(self) -> None:
        with recbole_errors():
            super()._set_train_neg_sample_args()

    def _set_eval_neg_sample_args(self, phase: str) -> None:
        """RecBole samples nothing for ``userN``, as for full ranking."""
        modes = self.final_config_dict["eval_args"]["mode"]
        mode = modes[phase]
        if EvalMode.parse(mode).by_user:
            modes[phase] = "full"
        with recbole_errors():
            super()._set_eval_neg_sample_args(phase)
        modes[phase] = mode

    def given(self) -> dict[str, Any]:
        """The keys that a user gave, as a checkpoint keeps them; not those of the launch."""
        values = {}
        for key, value in self.external_config_dict.items():
            declared = KEYS.get(key)
            if key in _OF_RUN or (declared is not None and declared.refused):
                continue
            from_text = self.origins.get(key) == COMMAND_LINE and key != "data_path"
            values[key] = self.final_config_dict.get(key) if from_text else value
        return {**values, "eval_args": deepcopy(self.protocol)}

    def _restore(self, values: Mapping[str, Any]) -> None:
        """Take from a checkpoint the defaults that have changed since it was written."""
        final = self.final_config_dict
        for key, value in values.items():
            declared = KEYS.get(key)
            fixed = declared is not None and (declared.of_place or declared.role is Role.DERIVED)
            if fixed or key in self.origins or key not in final or key == "eval_args":
                continue
            if isinstance(value, bool | int | float | str | list) and type(value) is type(
                final[key]
            ):
                final[key] = value

    def compared(self) -> dict[str, Any]:
        """The keys that two runs must have in common to be compared over users, with values."""
        return {name: self[name] for name, key in KEYS.items() if key.compared}

    def decisive(self) -> dict[str, Any]:
        """All keys that decide the result, with values."""
        values = {k: v for k, v in self.final_config_dict.items() if k not in PLACE_KEYS}
        if values["candidates_file"] is None:
            del values["candidates_file"]  # digests of earlier runs are without it
        return values

    def digest(self) -> str:
        """A short hash of all that decides the result, to distinguish runs.

        Returns:
            12 hexadecimal digits; devices, log settings and the folders of a run have no
            influence. Of a file its path counts, not its content.
        """
        text = json.dumps(self.decisive(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
