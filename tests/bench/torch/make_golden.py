"""Writes tests/golden: small cases in the layout of oracle.py, optimizer trajectories and rotary tables.

    /usr/bin/python3 make_golden.py [FOLDER]        default: tests/golden beside tests/bench

optimizers.safetensors  `w0` [6, 10], `g1`..`g5`, and NAME.1..NAME.5: the weights after each step (f64); the settings of
                        every NAME are in optimizers.json. Names that start with `tall` use `tall_w0` [10, 6] and `tall_g1`...
rope_scaling.json       a list of {dim, theta, max_position_embeddings, length, rope_scaling, inverse_frequencies,
                        attention_factor}
"""

import json
import math
import os
import sys

import torch

import models
import oracle
import safetensors_io

TINY = dict(batch=2, length=12, vocab_size=48, hidden_size=24, intermediate_size=32)
MLA = dict(q_lora_rank=10, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=8)
LORA = dict(r=3, alpha=5.0, targets=["q_proj", "v_proj", "o_proj", "up_proj"])
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)


def tiny(variant, **config):
    return oracle.case(variant, **{**TINY, **config})


GOLDEN = {
    "mha": tiny("mha"),
    "gqa": tiny("gqa", num_key_value_heads=2),
    "diff": tiny("diff", num_key_value_heads=4),
    "ngpt": tiny("ngpt", num_key_value_heads=4),
    "mla": tiny("mla", **MLA),
    "gqa_window": tiny("gqa", num_key_value_heads=1, sliding_window=5, tie_word_embeddings=True),
    "diff_gqa": tiny("diff", num_key_value_heads=2),
    "ngpt_gqa": tiny("ngpt", num_key_value_heads=2, sliding_window=4, logit_cap=4.0),
    "mla_window": tiny("mla", sliding_window=4, sliding_window_pattern=2, tie_word_embeddings=True, attention_bias=True,
                       kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=8),
    "gqa_caps": tiny("gqa", num_key_value_heads=2, attention_cap=1.5, logit_cap=2.0, z_loss=0.05, tie_word_embeddings=True),
    "gqa_multipliers": tiny("gqa", num_key_value_heads=2, embedding_multiplier=3.0, residual_multiplier=0.4,
                            attention_multiplier=0.3, logits_scaling=1.7, rope_scaling=YARN, logit_cap=2.0,
                            logit_cap_type="hard", hidden_act="relu2", tie_word_embeddings=True),
    "mha_post_norms": tiny("mha", post_attention_layernorm=True, post_ffnn_layernorm=True, attention_bias=True,
                           mlp_bias=True, hidden_act="gelu", tie_word_embeddings=True),
    "diff_documents": tiny("diff", num_key_value_heads=2, documents=True, ignore=True, tie_word_embeddings=True,
                           hidden_act="gelu_tanh"),
    "gqa_head_sim": tiny("gqa", num_key_value_heads=2, head_sim_loss=True, head_sim_loss_weight=0.5, sliding_window=6,
                         head_sim_loss_type="mse", tie_word_embeddings=True),
    "diff_head_sim": tiny("diff", num_key_value_heads=2, head_sim_loss=True, head_sim_loss_weight=0.5,
                          num_hidden_layers=1, tie_word_embeddings=True),
    "gqa_qkv_bias": tiny("gqa", num_key_value_heads=2, attention_bias=True, attention_output_bias=False,
                         tie_word_embeddings=True),
    "gqa_qk_norm": tiny("gqa", num_key_value_heads=2, qk_norm=True, head_dim=8),
    "gqa_lora": tiny("gqa", num_key_value_heads=2, lora=LORA, num_hidden_layers=2),
    "mla_lora": tiny("mla", lora=dict(LORA, targets=["q_a_proj", "kv_b_proj", "o_proj", "down_proj"]), **MLA,
                     num_hidden_layers=1, tie_word_embeddings=True),
    "mha_head_sim_jsd": tiny("mha", head_sim_loss=True, head_sim_loss_weight=0.5, head_sim_loss_type="jsd",
                             num_hidden_layers=1, tie_word_embeddings=True),
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- optimizers


def with_torch(make, w0, grads):
    w = w0.clone().requires_grad_()
    optimizer = make([w])
    steps = []
    for g in grads:
        w.grad = g.clone()
        optimizer.step()
        steps.append(w.detach().clone())
    return steps


def lion(w, grads, lr, b1, b2, wd):
    """arXiv 2302.06675."""
    m, steps = torch.zeros_like(w), []
    for g in grads:
        w = w - lr * ((b1 * m + (1 - b1) * g).sign() + wd * w)
        m = b2 * m + (1 - b2) * g
        steps.append(w)
    return steps


def newton_schulz(u, steps=5, a=3.4445, b=-4.7750, c=2.0315):
    """Pushes the singular values of u towards one."""
    x = u / (u.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


def muon(w, grads, lr, momentum, wd, moonshot):
    rows, cols = w.shape
    scale = 0.2 * math.sqrt(max(rows, cols)) if moonshot else math.sqrt(max(1.0, rows / cols))
    m, steps = torch.zeros_like(w), []
    for g in grads:
        m = momentum * m + g
        w = w * (1 - lr * wd) - lr * scale * newton_schulz(g + momentum * m)
        steps.append(w)
    return steps


def optimizer_trajectories():
    """(tensors, settings): what optimizers.safetensors and optimizers.json hold."""
    generator = torch.Generator().manual_seed(7)

    def drawn(shape):
        # Exact in f32, so that an f32 implementation starts from the very same numbers.
        return torch.randn(shape, generator=generator).double()

    tensors, settings = {}, {}
    for prefix, shape in (("", (6, 10)), ("tall_", (10, 6))):
        w0 = drawn(shape)
        # Gradients of several magnitudes: epsilon and the second moment matter.
        grads = [drawn(shape) * 10.0 ** (1 - i) for i in range(5)]
        grads = [g.float().double() for g in grads]
        tensors[prefix + "w0"] = w0
        tensors.update({f"{prefix}g{i + 1}": g for i, g in enumerate(grads)})

        def add(name, steps, prefix=prefix, **values):
            settings[prefix + name] = values
            tensors.update({f"{prefix}{name}.{i + 1}": w for i, w in enumerate(steps)})

        for scaling in ("default", "moonshot"):
            add(f"muon_{scaling}", muon(w0, grads, 0.02, 0.95, 0.1, scaling == "moonshot"),
                kind="muon", lr=0.02, momentum=0.95, weight_decay=0.1, scaling=scaling)  # fmt: skip
        if prefix:
            continue
        for name, lr, betas, eps, wd in (
            ("adamw", 1e-2, (0.9, 0.95), 1e-8, 0.1), ("adamw_no_decay", 1e-3, (0.9, 0.999), 1e-4, 0.0)):  # fmt: skip
            make = lambda p: torch.optim.AdamW(p, lr=lr, betas=betas, eps=eps, weight_decay=wd)  # noqa: B023, E731
            add(name, with_torch(make, w0, grads), kind="adamw", lr=lr, beta1=betas[0], beta2=betas[1], eps=eps,
                weight_decay=wd)  # fmt: skip
        # torch.optim.SGD adds weight_decay * w to the gradient (not decoupled).
        for name, momentum, nesterov, wd in (
            ("sgd", 0.0, False, 0.0), ("sgd_momentum", 0.9, False, 0.0), ("sgd_nesterov", 0.9, True, 0.0),
            ("sgd_coupled_decay", 0.9, True, 0.1)):  # fmt: skip
            make = lambda p: torch.optim.SGD(  # noqa: E731
                p, lr=0.01, momentum=momentum, nesterov=nesterov, weight_decay=wd)  # noqa: B023  # fmt: skip
            add(name, with_torch(make, w0, grads), kind="sgd", lr=0.01, momentum=momentum, nesterov=nesterov,
                weight_decay=wd)  # fmt: skip
        add("lion", lion(w0, grads, 1e-3, 0.9, 0.99, 0.1), kind="lion", lr=1e-3, beta1=0.9, beta2=0.99, weight_decay=0.1)
    return tensors, settings


# ------------------------------------------------------------------------------------------------------ rotary tables


def rope_entries():
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=8192)  # fmt: skip
    yarn = dict(rope_type="yarn", factor=16.0, original_max_position_embeddings=4096)
    cases = [
        (64, 10000.0, 2048, 2048, None),
        (12, 500000.0, 2048, 100, dict(rope_type="default")),
        (64, 10000.0, 8192, 8192, dict(rope_type="linear", factor=4.0)),
        (64, 10000.0, 2048, 1000, dict(rope_type="dynamic", factor=2.0)),  # no longer than the model's: as it is
        (64, 10000.0, 2048, 5000, dict(rope_type="dynamic", factor=2.0)),
        (64, 10000.0, 65536, 65536, yarn),
        (64, 10000.0, 65536, 65536, dict(yarn, beta_fast=20, beta_slow=2, attention_factor=1.25)),
        (64, 10000.0, 65536, 65536, dict(yarn, mscale=1.0, mscale_all_dim=0.7)),
        (128, 500000.0, 131072, 131072, llama3),
        (6, 10000.0, 128, 24, dict(llama3, factor=4.0, original_max_position_embeddings=32)),
    ]
    for dim, theta, longest, length, scaling in cases:
        frequencies, factor = models.rope_frequencies(dim, theta, scaling, longest, length)
        yield dict(dim=dim, theta=theta, max_position_embeddings=longest, length=length, rope_scaling=scaling,
                   inverse_frequencies=frequencies.tolist(), attention_factor=factor)  # fmt: skip


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "golden")
    for name, spec in GOLDEN.items():
        oracle.make_case(name, spec, os.path.join(out, name))
    tensors, settings = optimizer_trajectories()
    safetensors_io.write(os.path.join(out, "optimizers.safetensors"), tensors)
    with open(os.path.join(out, "optimizers.json"), "w") as file:
        json.dump(settings, file, indent=1)
        file.write("\n")
    with open(os.path.join(out, "rope_scaling.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry) for entry in rope_entries()) + "\n]\n")


if __name__ == "__main__":
    main()
