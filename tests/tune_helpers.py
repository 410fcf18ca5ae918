"""A planted data set, a search on it, and a search whose trials do not train."""

from __future__ import annotations

from pathlib import Path

from recbole_cierec.tuning import runner, tune

SEARCHED = "learning_rate: [0.0, 0.05, 0.1, 0.2]\nreg_weight: [0.0, 0.01]\n"
FIXED = {"epochs": 4, "embedding_size": 8, "train_batch_size": 64, "init_std": 0.01}


def write_two_tastes(folder: Path, turn: int = 0) -> None:
    """24 users of two tastes, 12 items each; a user has 8 items of their taste, in the order
    training, validation, test. ``turn`` changes only the items of the test part."""
    home = folder / "tastes"
    home.mkdir(parents=True)
    rows: list[list[str]] = [[], [], []]
    for user in range(24):
        for when in range(8):
            part = 0 if when < 5 else 1 if when == 5 else 2
            step = when + turn * (part == 2)
            item = 2 * ((user // 2 + 5 * step) % 12) + user % 2
            rows[part].append(f"u{user}\ti{item}\t{when}")
    text = "\n".join(
        ["user_id:token\titem_id:token\ttimestamp:float", *rows[0], *rows[1], *rows[2]]
    )
    (home / "tastes.inter").write_text(text + "\n")


def flags_of(data: Path, **extra) -> dict[str, str]:
    keys = {"data_path": data, "use_gpu": False, **FIXED, **extra}
    return {key: str(value) for key, value in keys.items()}


def search(data: Path, model="MF", dataset="tastes", trials=5, processes=1, flags=None, **options):
    flags = flags_of(data, **(flags or {}))
    options = {"search": str(data / "space.yaml"), "out": Path("out"), "flags": flags, **options}
    return tune(model, dataset, trials, processes, **options)


def arguments(data: Path, **own) -> list[str]:
    own = {"model": "MF", "dataset": "tastes", "search": data / "space.yaml", "out": "out", **own}
    return [f"--{key}={value}" for key, value in {**own, **flags_of(data)}.items()]


def fake(monkeypatch, score=None, error: BaseException | None = None) -> list[dict]:
    """Trials without training: the score is a function of the settings; which were run."""
    asked: list[dict] = []

    def run_trial(search, settings, check_data, watch=None):
        asked.append(settings)
        if error is not None:
            raise error
        value = score(settings)
        if value is None:
            return {"settings": settings, "valid": None, "reason": "none"}
        return {"settings": settings, "valid": value, "epochs": 4, "best_epoch": 3}

    monkeypatch.setattr(runner, "run_trial", run_trial)
    return asked
