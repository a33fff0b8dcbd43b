"""Writes the golden cases: OUT/CASE/{config.json, model.safetensors, ids.json, expected.safetensors, expected.json}.

    /usr/bin/python3 oracle.py OUT [CASE...]        needs PyTorch and NumPy (Debian: python3-torch, python3-numpy)

The truth is computed in float64 from weights that are exact in float32:
  expected.safetensors  `logits` [B, T, V] of all T positions; `grad.NAME` of the loss for every parameter
  expected.json         loss (the objective, predicting ids[:, 1:] from ids[:, :-1]), its parts, tokens (targets counted),
                        loss_f32 and loss_bf16 (bf16 operands of matrix products), and how far from the truth the gradients
                        of these two are: the largest ||difference|| / ||truth|| over the parameters; and
                        gradient_errors_bf16, see bf16_errors()
Optional inputs of a case, beside ids.json: targets.json [B, T-1] with -100 where ignored (replaces ids[:, 1:]), and
documents.json [B, T-1], document numbers: attention stays inside a document.
"""

import json
import math
import os
import sys

import torch

import models
import safetensors_io

SIZES = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=128)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
MLA = dict(q_lora_rank=20, kv_lora_rank=16, qk_rope_head_dim=6, qk_nope_head_dim=10, v_head_dim=14)


def case(variant, batch=3, length=24, documents=False, ignore=False, normalized=True, **config):
    return dict(config=dict(attention_type=variant, **{**SIZES, **config}), batch=batch, length=length,
                documents=documents, ignore=ignore, normalized=normalized)  # fmt: skip


CASES = {
    # each variant as it comes
    "mha": case("mha"),
    "gqa": case("gqa", num_key_value_heads=2),
    "diff": case("diff", num_key_value_heads=4),
    "ngpt": case("ngpt", num_key_value_heads=4),
    "mla": case("mla", **MLA),
    # grouped heads and windows on every variant that has them
    "mqa": case("gqa", num_key_value_heads=1),
    "diff_gqa": case("diff", num_key_value_heads=2),
    "diff_mqa": case("diff", num_key_value_heads=1, num_attention_heads=6, head_dim=8),
    "ngpt_gqa": case("ngpt", num_key_value_heads=2),
    "mla_defaults": case("mla"),
    "mha_window": case("mha", sliding_window=7),
    "gqa_window": case("gqa", num_key_value_heads=2, sliding_window=3),
    "diff_window": case("diff", num_key_value_heads=2, sliding_window=5),
    "ngpt_window": case("ngpt", num_key_value_heads=2, sliding_window=5),
    "mla_window": case("mla", sliding_window=9, sliding_window_pattern=2, **MLA),
    "window_pattern": case("gqa", num_key_value_heads=2, num_hidden_layers=3, sliding_window=4, sliding_window_pattern=3),
    # caps
    "caps_soft": case("gqa", num_key_value_heads=2, attention_cap=3.0, logit_cap=4.0),
    "logit_cap_hard": case("mha", logit_cap=2.5, logit_cap_type="hard"),
    "attention_cap_hard": case("mha", attention_cap=1.5, attention_cap_type="hard"),
    "diff_caps": case("diff", num_key_value_heads=2, attention_cap=2.0, logit_cap=5.0),
    "ngpt_caps": case("ngpt", num_key_value_heads=2, attention_cap=2.0, logit_cap=3.0),
    "mla_caps": case("mla", attention_cap=2.0, logit_cap=5.0, **MLA),
    # scales
    "multipliers": case("gqa", num_key_value_heads=2, embedding_multiplier=3.0, residual_multiplier=0.4,
                        attention_multiplier=0.2, logits_scaling=1.7),
    "logit_scale": case("diff", num_key_value_heads=4, logit_scale=0.6, logit_cap=2.0),
    "ngpt_scales": case("ngpt", num_key_value_heads=2, logit_scale=0.7, attention_scale=2.5),
    # sharing, biases, norms
    "tied": case("gqa", num_key_value_heads=2, tie_word_embeddings=True),
    "ngpt_tied": case("ngpt", num_key_value_heads=2, tie_word_embeddings=True),
    "ngpt_unnormalized": case("ngpt", num_key_value_heads=2, normalized=False),
    "biases": case("gqa", num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "diff_biases": case("diff", num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "mla_biases": case("mla", attention_bias=True, mlp_bias=True, **MLA),
    "post_norms": case("mha", post_attention_layernorm=True, post_ffnn_layernorm=True, rms_norm_eps=1e-3),
    "only_post_norms": case("mla", input_layernorm=False, pre_ffnn_layernorm=False, post_attention_layernorm=True,
                            post_ffnn_layernorm=True, **MLA),
    "no_norms": case("gqa", num_key_value_heads=2, input_layernorm=False, pre_ffnn_layernorm=False),
    "pre_ffnn_only": case("diff", num_key_value_heads=2, input_layernorm=False, post_attention_layernorm=True),
    # activations
    "gelu": case("mha", hidden_act="gelu"),
    "gelu_tanh": case("gqa", num_key_value_heads=2, hidden_act="gelu_tanh"),
    "relu": case("diff", num_key_value_heads=2, hidden_act="relu"),
    "relu2": case("mla", hidden_act="relu2", **MLA),
    "ngpt_gelu": case("ngpt", num_key_value_heads=2, hidden_act="gelu"),
    # head width and rotary scaling
    "head_dim": case("gqa", num_key_value_heads=2, head_dim=20),
    "rope_theta": case("mha", rope_theta=500.0),
    "rope_linear": case("gqa", num_key_value_heads=2, rope_scaling=dict(rope_type="linear", factor=3.0)),
    "rope_dynamic": case("mha", rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "rope_yarn": case("gqa", num_key_value_heads=2, rope_scaling=YARN),
    "rope_llama3": case("gqa", num_key_value_heads=2, rope_scaling=LLAMA3),
    "diff_yarn": case("diff", num_key_value_heads=2, rope_scaling=YARN),
    "ngpt_llama3": case("ngpt", num_key_value_heads=2, rope_scaling=LLAMA3),
    "mla_yarn": case("mla", rope_scaling=dict(beta_fast=16, beta_slow=2, attention_factor=1.3, **YARN), **MLA),
    # losses
    "z_loss": case("gqa", num_key_value_heads=2, z_loss=0.05, logit_cap=6.0),
    "ngpt_z_loss": case("ngpt", num_key_value_heads=2, z_loss=0.1),
    "head_sim_mse": case("mha", head_sim_loss=True, head_sim_loss_weight=0.2, head_sim_loss_type="mse"),
    "head_sim_jsd": case("gqa", num_key_value_heads=2, sliding_window=6, head_sim_loss=True, head_sim_loss_weight=0.7,
                         head_sim_loss_type="jsd"),
    "diff_head_sim": case("diff", num_key_value_heads=2, head_sim_loss=True, head_sim_loss_weight=0.2,
                          attention_cap=2.0, head_sim_loss_type="mse"),
    # ignored targets, documents
    "ignored": case("gqa", num_key_value_heads=2, ignore=True),
    "documents": case("gqa", num_key_value_heads=2, documents=True, ignore=True),
    "diff_documents": case("diff", num_key_value_heads=2, documents=True, sliding_window=5),
    "mla_documents": case("mla", documents=True, ignore=True, **MLA),
    # lengths that no tile divides
    "long": case("gqa", num_key_value_heads=2, batch=2, length=101, sliding_window=33),
    "one_layer_odd": case("mha", batch=1, length=3, vocab_size=37, hidden_size=24, intermediate_size=19, num_hidden_layers=1),
}  # fmt: skip


def trained_like_parameters(c, generator, normalized):
    """Weights far from their initial values, exact in f32: activations of order one, peaked attention, gains off one."""
    params = {}
    for name, shape in models.parameter_shapes(c).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(".bias"):
            value = 0.3 * noise
        elif ".lambda_" in name:
            value = 0.35 * noise
        elif c.attention_type == "ngpt" and len(shape) == 1:
            value = models.stored_init(c, name) * (1 + 0.3 * noise)
            if name.endswith("alpha"):  # negative rates too: the model takes their absolute value
                value = 2 * value * torch.where(torch.rand(shape, generator=generator) < 0.2, -1.0, 1.0)
            if name == "sz":  # as large as training makes them
                value = 5 * value
        elif len(shape) == 1:
            value = 1 + 0.3 * noise
        elif name == "model.embed_tokens.weight":
            value = noise * (1.0 if not c.tie_word_embeddings else 0.3)
        else:
            value = 0.9 * noise / math.sqrt(shape[1])
        params[name] = value
    if c.attention_type == "ngpt" and normalized:
        models.normalize_ngpt(params)
    return params


def evaluate(c, params, inputs, targets, documents, dtype, numerics=models.Numerics):
    """Loss parts as numbers, and gradients by name."""
    leaves = {name: value.to(dtype).clone().requires_grad_() for name, value in params.items()}
    parts = models.loss(c, leaves, inputs, targets, documents, numerics)
    parts["loss"].backward()
    numbers = {k: v if k == "tokens" else v.item() for k, v in parts.items() if k != "logits"}
    return numbers, {name: leaf.grad for name, leaf in leaves.items()}


def gradient_errors(grads, truth):
    """Relative errors by parameter. Only gradients that are not rounding noise count."""
    floor = 1e-9 * max(g.norm() for g in truth.values())
    return {n: ((grads[n].double() - g).norm() / g.norm()).item() for n, g in truth.items() if g.norm() > floor}


def worst_error(grads, truth):
    """Largest relative error over the parameters, and whose it is."""
    errors = gradient_errors(grads, truth)
    name = max(errors, key=errors.get)
    return errors[name], name


def draw(name, spec, attempt):
    """Parameters and inputs of a case: (config, params, ids, targets, documents or None)."""
    c = models.Config(spec["config"])
    seed = sum(ord(ch) * 31**i for i, ch in enumerate(name)) + attempt
    generator = torch.Generator().manual_seed(seed % 2**31)
    params = trained_like_parameters(c, generator, spec["normalized"])
    batch, length = spec["batch"], spec["length"]
    ids = torch.randint(0, c.vocab_size, (batch, length), generator=generator)
    targets, documents = ids[:, 1:].clone(), None
    if spec["ignore"]:  # a padded tail in the first row, scattered holes elsewhere
        targets[0, -length // 3 :] = models.IGNORE
        targets[1:][torch.rand(targets[1:].shape, generator=generator) < 0.2] = models.IGNORE
    if spec["documents"]:  # documents of about six tokens; every row differs
        documents = (torch.rand(targets.shape, generator=generator) < 1 / 6).long().cumsum(1)
    return c, params, ids, targets, documents


def measure(c, params, ids, targets, documents):
    """The truth's numbers and gradients, and beside them how far from the truth f32 and bf16 arithmetic are."""
    args = (c, params, ids[:, :-1], targets, documents)
    numbers, truth = evaluate(*args, torch.float64)
    for suffix, numerics in (("f32", models.Numerics), ("bf16", models.Bf16Operands)):
        got, grads = evaluate(*args, torch.float32, numerics)
        numbers["loss_" + suffix] = got["loss"]
        numbers["gradient_error_" + suffix], numbers["worst_" + suffix] = worst_error(grads, truth)
    return numbers, truth


NEIGHBOURS = 8


def bf16_errors(c, params, ids, targets, documents):
    """By parameter: the most that bf16 arithmetic loses of its gradient on this model and on neighbours of it, whose
    weights differ by two percent. One draw of roundings may be lucky; where terms cancel, several show it."""
    generator = torch.Generator().manual_seed(1)
    worst = {}
    for neighbour in range(NEIGHBOURS + 1):
        factor = lambda p: 1 + 0.02 * torch.randn(p.shape, generator=generator)  # noqa: E731
        near = params if neighbour == 0 else {n: p * factor(p) for n, p in params.items()}
        args = (c, near, ids[:, :-1], targets, documents)
        _, truth = evaluate(*args, torch.float64)
        _, grads = evaluate(*args, torch.float32, models.Bf16Operands)
        for name, error in gradient_errors(grads, truth).items():
            worst[name] = max(error, worst.get(name, 0.0))
    return worst


def well_conditioned(name, spec):
    """The first draw on which f32 and bf16 come close to the truth, else the best of forty. A gradient that happens to
    be a small difference of large terms would measure the luck of the summation order, not the implementation."""
    best = None
    for attempt in range(40):
        drawn = draw(name, spec, attempt)
        measured = measure(*drawn)
        error = max(measured[0]["gradient_error_f32"] / 2e-6, measured[0]["gradient_error_bf16"] / 1.5e-2)
        if best is None or error < best[0]:
            best = (error, drawn, measured)
        if error <= 1:
            break
    return best[1], best[2]


def make_case(name, spec, folder):
    (c, params, ids, targets, documents), (numbers, truth) = well_conditioned(name, spec)
    numbers["gradient_errors_bf16"] = bf16_errors(c, params, ids, targets, documents)
    os.makedirs(folder, exist_ok=True)

    def save(file, value):
        with open(os.path.join(folder, file), "w") as out:
            out.write(json.dumps(value) + "\n")

    with torch.no_grad():
        doubles = {n: p.double() for n, p in params.items()}
        # Documents cover the inputs only; the last token starts a document of its own.
        all_documents = None if documents is None else torch.cat((documents, documents[:, -1:] + 1), 1)
        logits, _ = models.forward(c, doubles, ids, all_documents)
    tensors = {"logits": logits.float()}
    tensors.update({"grad." + n: g.float() for n, g in truth.items()})
    save("config.json", spec["config"])
    save("ids.json", ids.tolist())
    save("expected.json", numbers)
    if spec["ignore"]:
        save("targets.json", targets.tolist())
    if spec["documents"]:
        save("documents.json", documents.tolist())
    safetensors_io.write(os.path.join(folder, "model.safetensors"), params)
    safetensors_io.write(os.path.join(folder, "expected.safetensors"), tensors)
    print(f"{name:20s} loss {numbers['loss']:10.6f}  f32 {numbers['loss_f32'] - numbers['loss']:+.1e}  "
          f"bf16 {numbers['loss_bf16'] - numbers['loss']:+.1e}  gradients: f32 {numbers['gradient_error_f32']:.1e}  "
          f"bf16 {numbers['gradient_error_bf16']:.1e} ({numbers['worst_bf16']})")  # fmt: skip


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out, names = sys.argv[1], sys.argv[2:] or list(CASES)
    for name in names:
        make_case(name, CASES[name], os.path.join(out, name))


if __name__ == "__main__":
    main()
