"""The data set of most tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_USERS, N_ITEMS, FEATURES, TOKENS, REGIONS = 30, 40, 6, 7, 4


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """Data set ``tiny``: 30 users, 40 items, of which the last five occur late.

    Item i39 has no line in tiny.item, i38 no annotations, i37 neither picture nor annotations.
    features.npy has a row for each line of tiny.item, regions.npy a map of 4 regions.
    """
    rng = np.random.default_rng(seed)
    home = folder / "tiny"
    home.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(N_USERS):
        count = int(rng.integers(5, 16))
        early = rng.choice(N_ITEMS - 5, size=count, replace=False)
        late = rng.choice(np.arange(N_ITEMS - 5, N_ITEMS), size=2, replace=False)
        for when, item in enumerate([*early, *late]):
            rows.append(f"u{user}\ti{item}\t{when}")
    (home / "tiny.inter").write_text("\n".join(rows) + "\n")
    lines = ["item_id:token\timage_path:token\tannotations:token_seq"]
    for item in range(N_ITEMS - 1):
        picked = rng.choice(TOKENS, size=int(rng.integers(1, 4)), replace=False)
        tokens = "" if item in (37, 38) else " ".join(f"t{t}" for t in picked)
        path = "" if item == 37 else f"images/{item}.png"
        lines.append(f"i{item}\t{path}\t{tokens}")
    (home / "tiny.item").write_text("\n".join(lines) + "\n")
    np.save(home / "features.npy", rng.standard_normal((N_ITEMS - 1, FEATURES)).astype("float32"))
    maps = rng.standard_normal((N_ITEMS - 1, REGIONS, FEATURES)).astype("float16")
    np.save(home / "regions.npy", maps)
    return home
