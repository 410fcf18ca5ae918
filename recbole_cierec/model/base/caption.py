"""The text of an item, generated word by word from a user, an item and a view of its picture.

    h_0 = m_0 = tanh(U [p_u ; q_i])
    gamma_t = sigmoid(w . h_{t-1})                                       picture against ids
    z_t     = ReLU(gamma_t W_v I_ui + (1 - gamma_t) W_x [p_u ; q_i] + b)
    h_t, m_t = LSTM([word_{t-1} ; z_t], h_{t-1}, m_{t-1});   P(word_t) = softmax(W_o h_t + b_o)

This is VECF's review decoder (Chen et al., SIGIR 2019) with its sizes. The authors' words have
frozen, pre-trained vectors; annotation tokens have none, so theirs are learned. Nothing marks the
end of a text: an item's tokens are a set in the order of the file, and how many there are is not
what a user's view could tell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN, WORD, CONTEXT = 100, 64, 50


class CaptionDecoder(nn.Module):
    """Costs of texts; used in training only.

    Args:
        size: d of p_u and q_i.
        region_size: C of a region vector.
        n_tokens: Tokens including the padding 0, whose vector stands before the first word.
    """

    def __init__(self, size: int, region_size: int, n_tokens: int) -> None:
        super().__init__()
        self.words = nn.Embedding(n_tokens, WORD)
        self.start = nn.Linear(2 * size, HIDDEN, bias=False)  # U
        self.gate = nn.Linear(HIDDEN, 1, bias=False)  # w
        self.region_map = nn.Linear(region_size, CONTEXT, bias=False)  # W_v
        self.id_map = nn.Linear(2 * size, CONTEXT, bias=False)  # W_x
        self.bias = nn.Parameter(torch.zeros(CONTEXT))  # b
        self.cell = nn.LSTMCell(WORD + CONTEXT, HIDDEN)
        self.output = nn.Linear(HIDDEN, n_tokens - 1)  # W_o: no text holds the padding

    def forward(self, p: Tensor, q: Tensor, image: Tensor, tokens: Tensor) -> Tensor:
        """Sum over words of -log P(word).

        Args:
            p: User vectors [B, d].
            q: Item vectors [B, d].
            image: W_v I_ui [B, CONTEXT].
            tokens: Token ids [B, L], 0 = padding, all at the end.

        Returns:
            [B]; zero for an item without tokens.
        """
        length = int((tokens > 0).sum(1).max())
        if not length:
            return p.new_zeros(len(p))
        tokens = tokens[:, :length]
        words = self.words(F.pad(tokens, (1, -1)))  # the word before each, [B, T, WORD]
        both = torch.cat([p, q], 1)
        ids, h = self.id_map(both), torch.tanh(self.start(both))
        memory, states = h, []
        for word in words.unbind(1):
            gamma = torch.sigmoid(self.gate(h))  # [B, 1]
            z = F.relu(gamma * image + (1 - gamma) * ids + self.bias)
            h, memory = self.cell(torch.cat([word, z], 1), (h, memory))
            states.append(h)
        real = tokens > 0
        logits = self.output(torch.stack(states, 1)[real])  # [words of all texts, tokens - 1]
        costs = F.cross_entropy(logits, tokens[real] - 1, reduction="none")
        return costs.new_zeros(real.shape).masked_scatter(real, costs).sum(1)
