"""The baselines as PreTrainedModels: save_pretrained, from_pretrained, generate, and packed documents kept apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import rnn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from prosemill.config.base_names import MODEL_TYPES
from prosemill.models.compat import TiedModel

State = tuple[torch.Tensor, torch.Tensor]


class RnnConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = MODEL_TYPES["rnn"]

    def __init__(
        self,
        vocab_size: int = 4096,
        embedding_size: int = 256,
        hidden_size: int = 512,
        num_hidden_layers: int = 2,
        dropout: float = 0.0,
        **more: Any,
    ) -> None:
        self.vocab_size, self.embedding_size, self.hidden_size = vocab_size, embedding_size, hidden_size
        self.num_hidden_layers, self.dropout = num_hidden_layers, dropout
        super().__init__(**more)


class TransformerConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = MODEL_TYPES["transformer"]

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        max_position_embeddings: int = 1024,
        dropout: float = 0.0,
        **more: Any,
    ) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.max_position_embeddings, self.dropout = max_position_embeddings, dropout
        super().__init__(**more)


class Baseline(TiedModel, GenerationMixin):  # type: ignore[misc]
    """A body and a head tied to its embedding. `position_ids` that restart tell where a packed document begins."""

    base_model_prefix = "model"

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.model = self._body(config)
        self.lm_head = nn.Linear(self.model.embedding.embedding_dim, config.vocab_size, bias=False)
        self.post_init()

    def _body(self, config: Any) -> Any:
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        """generate() re-reads the whole text at each step: a baseline is short and need not be fast there."""
        return {"input_ids": input_ids, "use_cache": False}

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: State | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        out = self.model(input_ids, position_ids=position_ids, past_key_values=past_key_values, use_cache=use_cache)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        hidden = out.last_hidden_state if isinstance(kept, int) else out.last_hidden_state[:, kept]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            number = more.get("num_items_in_batch")
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=number)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=out.past_key_values)


class RnnBody(nn.Module):
    """Embedding, LSTM, and a linear layer down to the width of the embedding."""

    def __init__(self, config: RnnConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_hidden_layers,
            batch_first=True,
            dropout=config.dropout,
        )
        self.narrow = nn.Linear(config.hidden_size, config.embedding_size)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        past_key_values: State | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        embedded = self.drop(self.embedding(input_ids))
        begins = document_begins(position_ids)
        if begins is None:
            hidden, state = self.lstm(embedded, past_key_values)
        else:
            hidden, state = self._apart(embedded, begins), None
        narrow = self.narrow(self.drop(hidden))
        return BaseModelOutputWithPast(last_hidden_state=narrow, past_key_values=state if use_cache else None)

    def _apart(self, embedded: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
        """Each packed document as a sequence of its own: no state passes from one to the next."""
        rows, tokens, width = embedded.shape
        begins = begins.clone()
        begins[:, 0] = True
        starts = torch.nonzero(begins.flatten()).flatten()
        ends = torch.cat([starts[1:], starts.new_tensor([rows * tokens])])
        sizes = (ends - starts).tolist()
        pieces = torch.split(embedded.reshape(rows * tokens, width), sizes)
        hidden, _ = self.lstm(rnn.pack_sequence(list(pieces), enforce_sorted=False))
        padded, _ = rnn.pad_packed_sequence(hidden, batch_first=True)
        joined = torch.cat([piece[:size] for piece, size in zip(padded, sizes, strict=True)])
        return joined.reshape(rows, tokens, -1)


class TransformerBody(nn.Module):
    """Embedding, learned positions, torch's TransformerEncoder."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.dropout,
            activation=nn.functional.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.num_hidden_layers, norm=nn.LayerNorm(config.hidden_size), enable_nested_tensor=False
        )
        self.heads = config.num_attention_heads
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPast:
        tokens = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(tokens, device=input_ids.device)[None]
        embedded = self.drop(self.embedding(input_ids) + self.positions(position_ids))
        begins = document_begins(position_ids)
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=input_ids.device).triu(1)
        if begins is None:
            hidden = self.encoder(embedded, mask=causal, is_causal=True)
        else:
            document = begins.cumsum(dim=1)
            hidden_from = causal | (document[:, :, None] != document[:, None, :])
            hidden = self.encoder(embedded, mask=hidden_from.repeat_interleave(self.heads, dim=0), is_causal=False)
        return BaseModelOutputWithPast(last_hidden_state=hidden)


class RnnForCausalLM(Baseline):
    config_class = RnnConfig

    def _body(self, config: RnnConfig) -> RnnBody:
        return RnnBody(config)


class TransformerForCausalLM(Baseline):
    config_class = TransformerConfig

    def _body(self, config: TransformerConfig) -> TransformerBody:
        return TransformerBody(config)


def document_begins(position_ids: torch.Tensor | None) -> torch.Tensor | None:
    """Where positions restart, a mask (rows, tokens); None where each row is one text."""
    if position_ids is None or position_ids.shape[1] < 2:
        return None
    begins = position_ids == 0
    return begins if bool(begins[:, 1:].any()) else None


for _config, _model in ((RnnConfig, RnnForCausalLM), (TransformerConfig, TransformerForCausalLM)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)
