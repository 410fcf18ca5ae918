"""RecBole's Config with our properties under it and checks around it.

Later layers win:

1. RecBole's ``overall.yaml`` and ``dataset/sample.yaml``,
2. our ``properties/overall.yaml``,
3. RecBole's yaml of the model, the data set and the model type, but for the protocol (below),
4. our ``properties/model/NAME.yaml``, then our ``properties/dataset/NAME.yaml``,
5. the user's files in order, ``config_dict``, the command line.

The protocol rule: RecBole's files of layer 3 may add what a model cannot run without
(``repeatable`` for sequential models, ``kg`` files for knowledge models), but not choose the data,
the split, the negatives or the evaluation, so that all models are compared on the same ground.
Those keys are :data:`PROTOCOL_KEYS`. ``load_col`` is halved: the columns of NAME.inter are ours;
other atomic files that RecBole's yaml loads for a model stay. Sequential models with a CE loss have
no negatives, and RecBole refuses any, so ``train_neg_sample_args`` is null for them unless the user
sets it.

``eval_args`` is merged key by key in layers 4 and 5: ``eval_args: {mode: uni100}`` keeps the split,
whether it stands in a file of ours, of the user, or on the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config as RecBoleConfig

import recbole_cierec.evaluation.metrics  # noqa: F401  registers NDCG_Hit
from recbole_cierec.config.compat import ConfigCompat
from recbole_cierec.config.data_keys import check_data_keys
from recbole_cierec.config.derived import adjust
from recbole_cierec.config.keys import LAUNCH_KEYS, check_keys, properties_dir
from recbole_cierec.config.metrics import check_metrics
from recbole_cierec.config.paths import check_kind, check_text
from recbole_cierec.config.split import split_of
from recbole_cierec.config.values import check_eval_args, check_value
from recbole_cierec.config.yaml import SafeYamlLoader, parse_value, read_yaml
from recbole_cierec.errors import ConfigError
from recbole_cierec.registry import MODELS, get_model_class, unknown_model

DEFAULT_MODEL = "CIERec"
DEFAULT_DATASET = "demo"
COMMAND_LINE = "command line"

PROTOCOL_KEYS = frozenset(
    "load_col unload_col unused_col filter_inter_by_user_or_item rm_dup_inter val_interval"
    " threshold user_inter_num_interval item_inter_num_interval normalize_field normalize_all"
    " item_vocabulary eval_args metrics topk valid_metric metric_decimal_place eval_batch_size"
    " train_neg_sample_args train_negatives user_group_boundary user_group_count"
    " item_group_boundary cold_item_views candidate_seed candidates_file eval_repeats".split()
)
# What differs between two runs of the same experiment.
PLACE_KEYS = LAUNCH_KEYS - {"model", "dataset"} | frozenset(
    "gpu_id use_gpu device worker state show_progress checkpoint_dir data_path cache_dir image_dir"
    " single_spec verbose resume save_dataset dataset_save_path save_dataloaders"
    " dataloaders_save_path log_wandb wandb_project candidates_file".split()
)


class Config(ConfigCompat, RecBoleConfig):
    """The configuration of one run.

    Unlike RecBole's it never reads ``sys.argv``: the program that has a command line passes it.

    Args:
        model: A model's name or class; None: the one that a file, dictionary or flag names, else
            CIERec.
        dataset: A data set's name; None: as above, else demo.
        config_file_list: The user's yaml files, later ones win.
        config_dict: Keys and values from Python.
        cmd_line: Keys and texts of the command line, from
            :func:`recbole_cierec.config.yaml.parse_command_line`.

    Attributes:
        notes: Lines that belong into the log, which does not exist yet at this point.
        origins: Key to the place of its effective value, for keys that a user gave.
        protocol: ``eval_args`` complete, and as it was before RecBole's part of it was taken out:
            a cold split is still in it. Whatever trains for this run is configured with it.

    Raises:
        ConfigError: For anything unknown, misspelt, of the wrong type or contradictory.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Iterable[str | os.PathLike[str]] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        cmd_line: Mapping[str, Any] | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.origins: dict[str, str] = {}
        self._given: list[tuple[str, str]] = []
        self._eval_args: dict[str, Any] = {}
        self._flags = dict(cmd_line or {})
        super().__init__(model, dataset, config_file_list, config_dict)

    # -- what the user gives -------------------------------------------------------------------

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # RecBole appends to its own module's lists.
        self.parameters = {kind: list(keys) for kind, keys in self.parameters.items()}

    def _build_yaml_loader(self) -> type[SafeYamlLoader]:
        return SafeYamlLoader

    def _load_config_files(self, file_list: Any) -> dict[str, Any]:
        if isinstance(file_list, str | os.PathLike):
            file_list = [file_list]
        values: dict[str, Any] = {}
        for file in file_list or []:
            values.update(self._note_origin(read_yaml(file), str(file)))
        return values

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
        # RecBole fills in what a nested dictionary lacks.
        return self._note_origin(deepcopy(dict(config_dict or {})), "config_dict")

    def _load_cmd_line(self) -> dict[str, Any]:
        values = {
            key: parse_value(value) if isinstance(value, str) else value
            for key, value in self._flags.items()
        }
        return self._note_origin(values, COMMAND_LINE)

    def _note_origin(self, values: dict[str, Any], origin: str) -> dict[str, Any]:
        for key, value in values.items():
            if not isinstance(key, str):
                raise ConfigError(f"{origin}: the key {key!r} is not a name")
            check_text(key, value, origin)
            self.origins[key] = origin
            self._given.append((key, origin))
            if key == "eval_args":
                self._eval_args.update(_checked_eval_args(value, origin))
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
            return model.__name__, model, dataset
        if not isinstance(model, str):
            raise unknown_model(str(model))
        return model, get_model_class(model), dataset

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
        super()._load_internal_config_dict(model, model_class, dataset)
        layers = {**self._base, **read_yaml(properties_dir() / "overall.yaml")}
        layers["load_col"] = {
            **{file: columns for file, columns in self._load_col().items() if file != "inter"},
            **layers["load_col"],
        }
        for key, value in self._special.items():
            if key not in PROTOCOL_KEYS:
                layers[key] = value
        for path in own_files(model, dataset):
            values = read_yaml(path)
            if "eval_args" in values:
                args = _checked_eval_args(values["eval_args"], str(path))
                values["eval_args"] = {**layers["eval_args"], **args}
            layers.update(values)
        layers["MODEL_TYPE"] = self.internal_config_dict["MODEL_TYPE"]
        self.internal_config_dict = layers

    def _load_col(self) -> dict[str, Any]:
        return self._special.get("load_col") or {}

    def _get_final_config_dict(self) -> dict[str, Any]:
        self.notes += check_keys(
            self._given, self.internal_config_dict, self.model, self.model_class
        )
        final = super()._get_final_config_dict()
        for key in self.external_config_dict:
            final[key] = self._checked(key, final[key])
        args = {**self.internal_config_dict["eval_args"], **self._eval_args}
        self.protocol = deepcopy(args)
        final["eval_args"] = args
        origin = self.origins.get("eval_args", "defaults")
        args["split"], final["strict_cold"] = split_of(final, origin)
        self.notes += adjust(final, self.external_config_dict, self.model, self.model_class)
        self.notes += check_data_keys(final, self.origins, self._eval_args)
        return final

    def _checked(self, key: str, value: Any) -> Any:
        origin = self.origins[key]
        text = self._flags[key] if origin == COMMAND_LINE else None
        loose = key in self._special and self.model not in MODELS
        default = self.internal_config_dict.get(key)
        checked = check_value(
            key, value, default, origin, text=text if isinstance(text, str) else None, loose=loose
        )
        check_kind(key, checked, origin)
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
            # RecBole would take its packaged copy without a word.
            self.final_config_dict["data_path"] = os.path.join(given_path, self.dataset)

    def _check_loss_type(self) -> None:
        """RecBole takes from it what a batch must hold, and passes over what it does not know."""
        if "MODEL_INPUT_TYPE" not in self.final_config_dict:
            given = self.final_config_dict["loss_type"]
            origin = self.origins.get("loss_type", "defaults")
            raise ConfigError(f"{origin}: 'loss_type' must be one of CE, BPR, not {given!r}")

    def _check_direction(self) -> None:
        """RecBole knows which way each metric is better, and passes over what the user says."""
        known = self.final_config_dict["valid_metric_bigger"]
        if self.external_config_dict.get("valid_metric_bigger", known) is not known:
            metric = self.final_config_dict["valid_metric"]
            raise ConfigError(
                f"{self.origins['valid_metric_bigger']}: valid_metric_bigger is {known} for "
                f"{metric}; remove the key"
            )

    def _check_device(self, on_gpu: bool) -> None:
        """Refuse a GPU that the user asks for and torch does not find; RecBole takes the CPU."""
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
        """``userN`` draws nothing of RecBole's, as full ranking."""
        modes = self.final_config_dict["eval_args"]["mode"]
        mode = modes[phase]
        if str(mode).startswith("user"):
            modes[phase] = "full"
        with recbole_errors():
            super()._set_eval_neg_sample_args(phase)
        modes[phase] = mode

    def digest(self) -> str:
        """A short hash of all that decides the result, for telling runs apart.

        Returns:
            12 hexadecimal digits; places, devices and log settings do not enter.
        """
        values = {k: v for k, v in self.final_config_dict.items() if k not in PLACE_KEYS}
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


_FULL_EVAL_ARGS = {"split": {"RS": [1, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}


def _checked_eval_args(value: Any, origin: str) -> dict[str, Any]:
    """The keys of ``eval_args`` that one place gives, checked; the others come from elsewhere."""
    args = parse_value(value) if isinstance(value, str) else value
    is_map = isinstance(args, Mapping)
    check_eval_args({**_FULL_EVAL_ARGS, **args} if is_map else args, origin)
    return dict(args)


@contextmanager
def recbole_errors() -> Iterator[None]:
    """Turn what RecBole raises for a user's values into one line."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def own_files(model: str, dataset: str) -> list[Path]:
    """Our yaml files of a model and a data set that exist, in their order.

    Raises:
        ConfigError: If the file of one of our models is missing.
    """
    files = []
    if model in MODELS:
        files.append(properties_dir() / "model" / f"{MODELS[model].properties}.yaml")
        if not files[0].is_file():
            raise ConfigError(f"{files[0]}: the defaults of {model} are missing")
    elif (properties_dir() / "model" / f"{model}.yaml").is_file():
        files.append(properties_dir() / "model" / f"{model}.yaml")
    if (properties_dir() / "dataset" / f"{dataset}.yaml").is_file():
        files.append(properties_dir() / "dataset" / f"{dataset}.yaml")
    return files


def property_files(model: str, dataset: str) -> list[str]:
    """The yaml files to give to RecBole's own functions as ``config_file_list``.

    Args:
        model: A model's name.
        dataset: A data set's name.

    Returns:
        Our overall file, then those of the model and the data set where there are any.
    """
    overall = properties_dir() / "overall.yaml"
    return [str(path) for path in (overall, *own_files(model, dataset))]
