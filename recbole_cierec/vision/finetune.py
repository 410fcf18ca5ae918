"""The network in the training loop: distinct pictures in blocks, as fast as the device allows.

The gradient is that of the whole batch, whatever the blocks. As many blocks as fit into
``encoder_memory`` keep what their backward pass needs; the others are computed again there, which
costs another forward pass of those pictures and nothing else (measured: torch's checkpoints add
nothing to it). The latest blocks are kept: their memory is free again when the recomputation of
the earlier ones begins.
"""

from __future__ import annotations

from logging import getLogger

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision import augmentation
from recbole_cierec.vision.encoders import VisualEncoder
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.frozen_stage import FrozenStage, extract_stage
from recbole_cierec.vision.row_source import RowSource, free_memory

COMPILER = "inductor"  # torch.compile's backend
# Of the free memory, what the backward pass may take by default. A processor's memory is for
# other programs too.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}


class PictureNetwork:
    """Runs an encoder on rows of a picture store; no module, it owns no parameters.

    Args:
        encoder: The network, on the device of the model.
        content: :class:`recbole_cierec.data.content.ItemContent`.
        config: RecBole config with the keys ``encoder_*``, ``augmentation`` and
            ``picture_store_device``.
    """

    def __init__(self, encoder: VisualEncoder, content, config) -> None:
        self.encoder, self.content, self.config = encoder, content, config
        self.block = config["encoder_batch_size"]
        self.augmentation = config["augmentation"]
        self.place = config["picture_store_device"]
        encoder.to(memory_format=torch.channels_last)  # what convolutions compute in anyway
        encoder.use_bfloat16(config["encoder_precision"] == "bfloat16", config["device"])
        self.stage: FrozenStage | None = None
        if config["encoder_freeze_until"]:
            self.stage = self._frozen_stage(config["encoder_freeze_until"])
        self._source: RowSource | None = None
        self._stage_digest = ""
        self._kept: int | None = None  # pictures that keep what the backward pass needs

    def _frozen_stage(self, name: str) -> FrozenStage:
        if self.augmentation != "none" and self.with_stage_cache:
            raise ConfigError(
                f"augmentation: {self.augmentation} changes the pictures at every step, so that "
                f"the output of {name} cannot be cached; set encoder_stage_cache to none, or "
                "augmentation to none"
            )
        return FrozenStage(self.encoder, name, self.content.store.pictures.shape[1])

    @property
    def with_stage_cache(self) -> bool:
        """Whether a step starts from the cached output of the frozen stage."""
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
        size = self.content.store.pictures.shape[1]
        return augmentation.draw(count, size, self.augmentation).split(self.block)

    def _inputs(self, block: Tensor) -> Tensor:
        """What the part that learns takes."""
        uncached = self.stage is not None and not self.with_stage_cache
        return self.stage.output(block) if uncached else block

    def _run(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs) if self.stage is None else self.stage.features(inputs)

    # -------------------------------------------------------------------------- inputs

    def open(self, device: torch.device) -> None:
        """Get the inputs ready. All processes of a run must call it, and compute a part each of
        what a frozen stage gives; left to the first step, each would compute all of it, and one
        whose rows have no picture would wait for the others' gradients meanwhile."""
        self._rows(device, WHOLE)

    def _rows(self, device: torch.device, shard: Shard | None = None) -> RowSource:
        if self._source is None:
            cached = self.with_stage_cache
            array = self._stage_rows(device, shard) if cached else self.content.store.pictures
            self._source = RowSource(array, self.place)
        return self._source

    def _stage_rows(self, device: torch.device, shard: Shard | None = None):
        self._stage_digest = self.stage.digest()
        return extract_stage(
            self.stage,
            self.content.store,
            kind=self.config["encoder_stage_cache"],
            cache_dir=self.content.cache_dir,
            batch_size=self.block,
            device=device,
            progress=self.config["show_progress"],
            shard=shard,
        )

    def weights_were_loaded(self) -> None:
        """Drop the cached stage if it is of other weights than the network has now."""
        if self._stage_digest and self.stage.digest() != self._stage_digest:
            self._source, self._stage_digest = None, ""

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
        learning = self.encoder.trunk if self.stage is None else self.stage.rest
        learning.compile(backend=COMPILER)
