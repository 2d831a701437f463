"""Log-probabilities of a packed batch: one forward of the body, the head at supervised rows only.

Every training method is a function of these. Shape legend: T packed tokens, H hidden size, V vocabulary,
S supervised targets, U unique supervised rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftModel
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramify.base.errors import ModelError
from ramify.model.cross_entropy import token_logprobs_from_hidden, weighted_nll_from_hidden
from ramify.model.families import DROPS_KEYWORDS, check_depth, check_family, head_form
from ramify.tree.attention import ATTENTION, register, tree_layout
from ramify.tree.pack import Batch

Network = PreTrainedModel | PeftModel


def base_network(network: nn.Module) -> PreTrainedModel:
    """The Transformers model inside a PEFT model (with the adapters injected), or the model itself.

    Raises:
        ModelError: the adapter prepends virtual tokens, which no tree knows of.
    """
    if not isinstance(network, PeftModel):
        if not isinstance(network, PreTrainedModel):
            raise ModelError(f"a Transformers or PEFT model is needed, found {type(network).__name__}")
        return network
    if network.active_peft_config.is_prompt_learning:
        raise ModelError(f"adapters of type {network.active_peft_config.peft_type} cannot be used", hint="use LoRA")
    return cast(PreTrainedModel, network.get_base_model())


def attend_on_trees(network: Network) -> PreTrainedModel:
    """Switch the model to tree attention (for good: a call without a layout computes what it always did).

    Raises:
        ModelError: the family cannot be computed as a tree.
    """
    base = base_network(network)
    if base.config._attn_implementation != ATTENTION:
        check_family(base.config)
        register()
        base.set_attn_implementation(ATTENTION)
    recomputed = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if recomputed and base.config.model_type in DROPS_KEYWORDS:
        raise ModelError(
            f"gradient checkpointing is not available for {base.config.model_type}", hint="train.checkpointing=false"
        )
    return base


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """Inside the block the network is in evaluation mode and keeps no gradients; its mode afterwards is as before."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


def hidden_states(network: Network, batch: Batch) -> Tensor:
    """[T, H] last hidden states of the packed row, after the final norm; one forward of the body, no head.

    Raises:
        ModelError: the family cannot be computed as a tree.
        LengthError: a path is longer than this model's rotary embeddings keep apart.
    """
    base = attend_on_trees(network)
    check_depth(base.config, batch.layout.depth)
    if not len(batch.input_ids):
        return torch.zeros(0, base.config.hidden_size, dtype=base.dtype, device=batch.input_ids.device)
    with tree_layout(batch.layout):
        output = base.base_model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position[None],
            use_cache=False,
            tree_layout=batch.layout,
        )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def logits(network: Network, hidden: Tensor) -> Tensor:
    """[..., V] the model's logits of hidden states [..., H], in the head's type, soft cap and scale applied."""
    base = base_network(network)
    return head_form(base.config).apply(_head(base)(hidden))


def token_logprobs(network: Network, batch: Batch) -> Tensor:
    """[S] fp32 natural log-probability of each supervised target, differentiable.

    Softmax and sums are in fp32; the head's products keep the model's type.
    """
    rows, row_of_target = torch.unique(batch.rows, return_inverse=True)
    hidden = hidden_states(network, batch)[rows]
    base = base_network(network)
    head, form = _product_head(base), head_form(base.config)
    if head is None:
        scores = logits(network, hidden).float()
        return scores[row_of_target, batch.targets] - scores.logsumexp(-1)[row_of_target]
    return token_logprobs_from_hidden(
        hidden, *head, row_of_target, batch.targets, softcap=form.softcap, scale=form.scale
    )


def sequence_logprobs(network: Network, batch: Batch) -> Tensor:
    """[n_sequences] fp32, for each sequence the weighted sum of its trained tokens' log-probabilities."""
    weighted = token_logprobs(network, batch) * batch.weights
    return weighted.new_zeros(batch.n_sequences).index_add(0, batch.sequence, weighted)


def weighted_nll(network: Network, batch: Batch, divisor: float) -> Tensor:
    """Scalar fp32 loss: minus the weighted sum of log-probabilities, divided by the weight of the whole step.

    The divisor is counted over all micro-batches of a step before the first of them, so that the sum of their losses
    (and gradients) is that of the step. Where the head is a plain product, its gradient is made chunk by chunk in the
    forward pass, and no logits are kept.
    """
    base = base_network(network)
    head, form = _product_head(base), head_form(base.config)
    if head is None:
        return -(token_logprobs(network, batch) * batch.weights).sum() / divisor
    rows, row_of_target = torch.unique(batch.rows, return_inverse=True)
    return weighted_nll_from_hidden(
        hidden_states(network, batch)[rows],
        *head,
        row_of_target,
        batch.targets,
        batch.weights,
        divisor,
        softcap=form.softcap,
        scale=form.scale,
    )


def _product_head(base: PreTrainedModel) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a head that is a plain product, or that PEFT trains whole or by rows; None for others.

    PEFT's wrappers answer for `weight` with what is in force: the original when adapters are off. A head with low-rank
    or quantised weights is called as a module instead.
    """
    head = _head(base)
    wrapped = isinstance(head, ModulesToSaveWrapper | TrainableTokensWrapper)
    plain = type(head.original_module if wrapped else head) is nn.Linear
    return (cast(Tensor, head.weight), getattr(head, "bias", None)) if plain else None


def _head(base: Any) -> nn.Module:
    head: nn.Module = base.get_output_embeddings()
    return head
