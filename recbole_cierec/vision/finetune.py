"""The network in the training loop: distinct pictures, block by block.

The gradient is that of the whole batch, whatever the blocks. As many blocks as fit into
``encoder_memory`` keep what their backward pass needs; the others are computed again there, which
costs one more forward pass of those pictures (measured: torch's checkpoints add nothing to it).
The last blocks are kept: their memory is free again when the recomputation of the first begins.
"""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision import augmentation
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.frozen_trunk import FrozenTrunk, extract_frozen
from recbole_cierec.vision.item_pictures import ItemPictures
from recbole_cierec.vision.row_source import RowSource, free_memory
from recbole_cierec.vision.visual_encoder import VisualEncoder

COMPILER = "inductor"  # torch.compile's backend
# Share of the free memory that the backward pass may take by default; other programs use a
# processor's memory too.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}


class PictureNetwork:
    """Runs an encoder on rows of a picture store; not a module, as it owns no parameters.

    Args:
        encoder: The network, on the device of the model.
        pictures: Pictures of the data set's items.
        config: RecBole config with the keys ``encoder_*``, ``augmentation`` and
            ``picture_store_device``.
    """

    def __init__(self, encoder: VisualEncoder, pictures: ItemPictures, config: Any) -> None:
        self.encoder, self.pictures, self.config = encoder, pictures, config
        self.block = config["encoder_batch_size"]
        self.augmentation = config["augmentation"]
        self.place = config["picture_store_device"]
        encoder.to(memory_format=torch.channels_last)  # what convolutions compute in anyway
        encoder.use_bfloat16(config["encoder_precision"] == "bfloat16", config["device"])
        self.frozen: FrozenTrunk | None = None
        if config["encoder_freeze_until"]:
            self.frozen = self._frozen_trunk(config["encoder_freeze_until"])
        self._source: RowSource | None = None
        self._frozen_digest = ""  # of what the cached outputs were computed with
        self._kept: int | None = None  # pictures that keep what the backward pass needs

    def _frozen_trunk(self, name: str) -> FrozenTrunk:
        if self.augmentation != "none" and self.is_cached:
            raise ConfigError(
                f"augmentation: {self.augmentation} changes the pictures at every step, so that "
                f"the output of {name} cannot be cached; set encoder_stage_cache to none, or "
                "augmentation to none"
            )
        return FrozenTrunk(self.encoder, name, self.pictures.store.pictures.shape[1])

    @property
    def is_cached(self) -> bool:
        """Whether a step starts from the cached output of the frozen part."""
        kept = self.config["encoder_stage_cache"] != "none"
        return bool(self.config["encoder_freeze_until"]) and kept

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows of the store [n], distinct -> features [n, D] before normalisation."""
        moves = self._moves(len(rows))
        blocks = self._rows(rows.device).blocks(rows.split(self.block), rows.device)
        twice = 0  # first blocks that are computed again in the backward pass
        parts: list[Tensor] = []
        for k, block in enumerate(blocks):
            if moves:
                block = augmentation.apply(block, moves[k])
            inputs = self._inputs(block)
            if not torch.is_grad_enabled():
                parts.append(self._run(inputs))
                continue
            if k == 0:
                twice = self._computed_twice(len(rows), inputs)
            again = k < twice
            parts.append(
                checkpoint(self._run, inputs, use_reentrant=False) if again else self._run(inputs)
            )
        return torch.cat(parts)

    def _moves(self, count: int) -> list[augmentation.Moves]:
        if self.augmentation == "none" or not self.encoder.training:
            return []
        size = self.pictures.store.pictures.shape[1]
        return augmentation.draw(count, size, self.augmentation).split(self.block)

    def _inputs(self, block: Tensor) -> Tensor:
        """The input of the part that learns."""
        if self.frozen is None or self.is_cached:
            return block
        return self.frozen.output(block)

    def _run(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs) if self.frozen is None else self.frozen.features(inputs)

    # -------------------------------------------------------------------------- inputs

    def open(self, device: torch.device) -> None:
        """Prepare the inputs; all processes of a run must call it, and share the work.

        Left to the first step, each would compute all outputs of the frozen part, and a process
        whose rows have no picture would wait for the others' gradients meanwhile.
        """
        self._rows(device, WHOLE)

    def _rows(self, device: torch.device, shard: Shard | None = None) -> RowSource:
        if self._source is None:
            cached = self._frozen_outputs(device, shard)
            array = self.pictures.store.pictures if cached is None else cached
            self._source = RowSource(array, self.place)
        return self._source

    def _frozen_outputs(
        self, device: torch.device, shard: Shard | None = None
    ) -> np.ndarray | None:
        """The cached output of the frozen part for every row of the store; None without a cache."""
        if self.frozen is None or not self.is_cached:
            return None
        self._frozen_digest = self.frozen.digest()
        return extract_frozen(
            self.frozen,
            self.pictures.store,
            kind=self.config["encoder_stage_cache"],
            cache_dir=self.pictures.cache_dir,
            batch_size=self.block,
            device=device,
            progress=self.config["show_progress"],
            shard=shard,
        )

    def weights_were_loaded(self) -> None:
        """Drop the cached outputs if the frozen part has other weights now."""
        if self.frozen is not None and self._frozen_digest not in ("", self.frozen.digest()):
            self._source, self._frozen_digest = None, ""

    # -------------------------------------------------------------------------- memory

    def _computed_twice(self, count: int, inputs: Tensor) -> int:
        """How many of the first blocks of ``count`` pictures are computed again."""
        if self._kept is None:
            self._kept = self._most_kept(inputs)
            if self.config["encoder_compile"]:
                self._compile()
        if count <= self._kept:
            return 0
        blocks = -(-count // self.block)
        return blocks - self._kept // self.block

    def _most_kept(self, inputs: Tensor) -> int:
        """Pictures whose backward pass fits into ``encoder_memory``."""
        limit = self.config["encoder_memory"]
        if limit is None:
            share = MEMORY_SHARE.get(inputs.device.type, MEMORY_SHARE["cpu"])
            if inputs.device.type == "cpu":  # a GPU is one process's alone
                share /= self.config["nproc"] or 1
            room = share * free_memory(inputs.device)
        else:
            room = limit * 2**20
        each = self._bytes_of_picture(inputs)
        getLogger().info(
            f"Fine-tuning {self.encoder.name}: {each / 2**20:.2f} MiB a picture for the backward "
            f"pass; pictures of a batch beyond {room / each:,.0f} pass the network twice"
        )
        return int(room // each)

    def _bytes_of_picture(self, inputs: Tensor) -> int:
        """Memory that one more picture in a batch takes until the backward pass.

        A difference, so that what does not grow with the batch (weights, their half precision
        copies) drops out.
        """
        one, two = (self._bytes_saved(inputs[:1].expand(n, *inputs.shape[1:])) for n in (1, 2))
        return max(1, two - one)

    def _bytes_saved(self, inputs: Tensor) -> int:
        held: dict[int, torch.UntypedStorage] = {}  # held, as a free one's place is taken again

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage
            return tensor

        devices = [inputs.device] if inputs.device.type == "cuda" else []
        # Dropout must not notice this pass: a resumed run makes it at another time.
        with torch.random.fork_rng(devices), saved_tensors_hooks(note, lambda tensor: tensor):
            result = self._run(inputs)
        del result
        return sum(storage.nbytes() for storage in held.values())

    def _compile(self) -> None:
        learning = self.encoder.trunk if self.frozen is None else self.frozen.rest
        learning.compile(backend=COMPILER)
