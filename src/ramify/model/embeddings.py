"""Rows for tokens that a tokenizer knows and a model does not: in the embedding, and in the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def fit_embeddings(network: Any, size: int) -> None:
    """Give every token below `size` a row; missing ones are made as `grow_embeddings` makes them."""
    before = network.get_input_embeddings().weight.shape[0]
    if size > before:
        grow_embeddings(network, size, range(before, size))


def grow_embeddings(network: Any, size: int, new_ids: Sequence[int]) -> None:
    """Rows for new tokens: spare rows are used, missing ones made; each starts at the mean of the old rows.

    Nothing is drawn at random, so that a model is the same however often it is loaded.

    Args:
        size: tokens that need a row.
        new_ids: those among them whose rows are filled.
    """
    before = network.get_input_embeddings().weight.shape[0]
    if size > before:
        network.resize_token_embeddings(size, mean_resizing=False)
    new = list(new_ids)
    with torch.no_grad():
        for layer in _token_layers(network):
            old = min(before, min(new))
            layer.weight[new] = layer.weight[:old].float().mean(dim=0).to(layer.weight.dtype)


def _token_layers(network: Any) -> list[Any]:
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    return [embedding] if head.weight is embedding.weight else [embedding, head]
