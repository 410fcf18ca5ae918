"""The synthetic data of all speed figures, as atomic files.

    python benchmarks/synthetic.py --into=DIR [--users=20000 --items=10000 --pairs=500000]

Users are drawn with weight rank^-0.5, items with rank^-0.8, until there are ``--pairs`` distinct
pairs; features are standard normal. All random numbers come from ``--seed``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def draw_pairs(users: int, items: int, pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct (user, item) [pairs, 2] in the order of drawing."""
    weights = [np.arange(1, n + 1) ** -power for n, power in ((users, 0.5), (items, 0.8))]
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < pairs:
        draws = [rng.choice(len(w), pairs, p=w / w.sum()) for w in weights]
        keys = np.concatenate([keys, draws[0] * items + draws[1]])
        _, first = np.unique(keys, return_index=True)
        keys = keys[np.sort(first)]
    return np.stack(np.divmod(keys[:pairs], items), axis=1)


def make(into: Path, users: int, items: int, pairs: int, size: int, seed: int = 0) -> Path:
    """Write ``synthetic/`` below ``into`` unless it exists; returns its folder."""
    home = into / "synthetic"
    if (home / "synthetic.inter").is_file():
        return home
    home.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    drawn = draw_pairs(users, items, pairs, rng)
    np.save(home / "features.npy", rng.standard_normal((items, size), dtype=np.float32))
    with (home / "synthetic.item").open("w") as file:
        file.write("item_id:token\timage_path:token\tannotations:token_seq\n")
        file.writelines(f"i{i}\t\tt{i % 50} t{50 + i % 7}\n" for i in range(items))
    with (home / "synthetic.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"u{u}\ti{i}\t{k}\n" for k, (u, i) in enumerate(drawn))
    return home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True)
    for name, default in (("users", 20000), ("items", 10000), ("pairs", 500000), ("size", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    print(make(a.into, a.users, a.items, a.pairs, a.size, a.seed))


if __name__ == "__main__":
    main()
