"""T5's encoder as `transformers` and llama.cpp store it, to ``T5Encoder``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table, parts

_Q, _K, _V = parts("layers.{n}.qkv.weight", 3)
_GATE, _VALUE = parts("layers.{n}.mlp_in.weight", 2)
T5: Table = {
    "shared.weight": "words.weight",
    "encoder.embed_tokens.weight": None,  # the same tensor again
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "bias.weight",
    "encoder.block.{n}.layer.0.layer_norm.weight": "layers.{n}.norm1.weight",
    "encoder.block.{n}.layer.0.SelfAttention.q.weight": _Q,
    "encoder.block.{n}.layer.0.SelfAttention.k.weight": _K,
    "encoder.block.{n}.layer.0.SelfAttention.v.weight": _V,
    "encoder.block.{n}.layer.0.SelfAttention.o.weight": "layers.{n}.out.weight",
    "encoder.block.{n}.layer.1.layer_norm.weight": "layers.{n}.norm2.weight",
    "encoder.block.{n}.layer.1.DenseReluDense.wi_0.weight": _GATE,
    "encoder.block.{n}.layer.1.DenseReluDense.wi_1.weight": _VALUE,
    "encoder.block.{n}.layer.1.DenseReluDense.wo.weight": "layers.{n}.mlp_out.weight",
    "encoder.final_layer_norm.weight": "norm.weight",
}

_BLOCK = "enc.blk.{n}."
GGUF: Table = {
    "token_embd.weight": "words.weight",
    "enc.blk.0.attn_rel_b.weight": "bias.weight",
    f"{_BLOCK}attn_norm.weight": "layers.{n}.norm1.weight",
    f"{_BLOCK}attn_q.weight": _Q,
    f"{_BLOCK}attn_k.weight": _K,
    f"{_BLOCK}attn_v.weight": _V,
    f"{_BLOCK}attn_o.weight": "layers.{n}.out.weight",
    f"{_BLOCK}ffn_norm.weight": "layers.{n}.norm2.weight",
    f"{_BLOCK}ffn_gate.weight": _GATE,
    f"{_BLOCK}ffn_up.weight": _VALUE,
    f"{_BLOCK}ffn_down.weight": "layers.{n}.mlp_out.weight",
    "enc.output_norm.weight": "norm.weight",
}
"""As llama.cpp names it in GGUF (`gguf.get_tensor_name_map` of the package)."""
