"""The modalities of items, pictures, annotations and given features, and their graphs of similar
items.

    f_picture    the features of the encoder, of length 1 unless ``feature_norm`` says otherwise
    f_text       idf of the item's annotation tokens, 0 for others, of length 1
    f_m          the given features of each further modality of the key ``features``
    idf          log((1 + n) / (1 + n_t)) + 1, of n items with annotations n_t have the token

idf counts training items only: unseen items change no other item's vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.given_modalities import GivenModalities, ModalityMaps
from recbole_cierec.model.base.graph_recommender import GraphRecommender, interaction_graphs
from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.vision.item_pictures import pictures_of

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset

PICTURE, TEXT = "picture", "text"


class ItemModalities(GraphRecommender):
    """The modalities of items and their maps to d, W_m f_m.

    Args:
        config: Configuration of the run.
        dataset: Items and interactions.
        use_image: Whether the picture is a modality.

    Attributes:
        modalities: Names of the modalities: the picture, the annotations by key, and those of the
            key ``features``, as in ``text features``.

    Raises:
        ConfigError: Nothing describes an item.
    """

    reads_features = True

    def __init__(self, config: Config, dataset: VisualDataset, use_image: bool = True) -> None:
        super().__init__(config, dataset)
        self.neighbours_count = config["neighbours_count"]
        pictures, gain = pictures_of(dataset.content), config["content_init_gain"]
        self.register_buffer("features", pictures.features, persistent=False)
        self.encoder = self.item_encoder(config, dataset)
        self.modalities = []
        if use_image:
            self.modalities.append(PICTURE)
            with self.random_stream("image"):
                self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)
        if config["use_annotations"]:
            self.modalities.append(TEXT)
            tokens = dataset.content.tokens
            self.register_buffer("tokens", tokens, persistent=False)
            weights = token_weights(tokens, self.seen > 0)
            self.register_buffer("token_weights", weights, persistent=False)
            with self.random_stream("annotations"):
                self.token_embedding = self.token_table(
                    len(dataset.content.token_names), self.size, gain
                )
        self.given = GivenModalities(dataset.content)
        self._given_names = {f"{name} features": name for name in self.given.sizes}
        self.modalities += self._given_names
        if not self.modalities:
            raise ConfigError(
                f"{type(self).__name__}: use_image and use_annotations are both False, and the key "
                "features names no others; switch one on"
            )
        self.given_maps = ModalityMaps(self.given.sizes, self.size, gain, self.random_stream)

    def modality(self, name: str, items: Tensor) -> Tensor:
        """W_m f_m of items [m, d]; zero without the modality. The rows of ``token_embedding`` are
        the columns of the annotations' W_m."""
        if name == PICTURE:
            return self.projection(self.encoder(items))
        if name in self._given_names:
            given = self._given_names[name]
            return self.given_maps[given](getattr(self.given, given)[items])
        tokens, weights = self.tokens[items], self.token_weights[items]
        return F.embedding_bag(
            tokens, self.token_embedding.weight, per_sample_weights=weights, mode="sum"
        )

    def similarity(self, name: str) -> tuple[graphs.Similarity, Tensor]:
        """Cosines of f_m between items, and bool [n_items], the items that have the modality."""
        if name == PICTURE:
            unit = F.normalize(self.features)
            return graphs.inner(unit), unit.any(1)
        if name in self._given_names:
            unit = F.normalize(getattr(self.given, self._given_names[name]))
            return graphs.inner(unit), unit.any(1)
        bags = token_bags(self.tokens, self.token_weights, self.token_embedding.num_embeddings)
        return graphs.inner_sparse(bags), self.tokens[:, 0] > 0


class MultimodalGraphs(ItemModalities):
    """Id tables and the graphs: interactions, and similar items of each modality.

    In a graph of similar items each item has an edge to itself and to the k - 1 items with the
    highest cosine that have a training interaction. Items without the modality have no edge.
    """

    weighted_neighbours = False  # whether edges between similar items have their cosine as weight

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.content_layers, self.id_layers = config["content_layers"], config["id_layers"]
        self.user_embedding = nn.Embedding(self.n_users, self.size)  # p_u
        self.item_embedding = nn.Embedding(self.n_items, self.size)  # q_i
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.weight)

    def item_graph(self, name: str) -> scipy.sparse.spmatrix:
        """The graph of similar items of a modality [n_items, n_items]."""
        similar, filled = self.similarity(name)
        sources, count = self.seen > 0, self.neighbours_count
        return graphs.neighbour_graph(similar, filled, sources, count, self.weighted_neighbours)

    def matrices(self) -> Iterator[tuple[str, scipy.sparse.spmatrix]]:
        yield from interaction_graphs(self.interactions)
        for name in self.modalities:
            yield name, self.item_graph(name)

    def ids(self) -> tuple[Tensor, Tensor]:
        """p [n_users, d] and q [n_items, d], zero for unseen items."""
        return self.user_embedding.weight, self.item_embedding.weight * self.seen.unsqueeze(1)


def token_weights(tokens: Tensor, counted: Tensor) -> Tensor:
    """Weights of annotation tokens in f_text.

    Args:
        tokens: Token ids [n_items, L], each at most once per item, 0 = padding.
        counted: bool [n_items], the items whose tokens idf counts.

    Returns:
        [n_items, L], rows of length 1; 0 at padding.
    """
    among = tokens[counted & (tokens[:, 0] > 0)]
    frequency = torch.bincount(among.reshape(-1), minlength=int(tokens.max()) + 1)
    idf = ((1.0 + len(among)) / (1.0 + frequency)).log() + 1.0
    return F.normalize(idf[tokens] * (tokens > 0))


def token_bags(tokens: Tensor, weights: Tensor, n_tokens: int) -> scipy.sparse.csr_matrix:
    """f_text as csr [n_items, n_tokens], float32."""
    rows, places = (x.numpy() for x in (tokens > 0).cpu().nonzero(as_tuple=True))
    at = rows, tokens.cpu().numpy()[rows, places]
    values = weights.cpu().numpy()[rows, places].astype(np.float32)
    return scipy.sparse.coo_matrix((values, at), shape=(len(tokens), n_tokens)).tocsr()
