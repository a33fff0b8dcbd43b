"""Checks models.py against what does not depend on it:

    /usr/bin/python3 check_models.py

  values     every case of oracle.py and make_golden.py, recomputed token by token in NumPy loops written from the formulas
  gradients  finite differences in float64 along random directions, for every parameter of every case
  causality  a changed token changes no earlier logit, and nothing outside its window or document
  optimizers known values of Newton-Schulz and of the first AdamW step
"""

import math
import sys

import numpy as np
import torch

import make_golden
import models
import oracle

# ------------------------------------------------------------------------------------------ the model, token by token


def norm_rms(x, gain, eps):
    return x / math.sqrt(np.dot(x, x) / len(x) + eps) * gain


def turn(x, position, frequencies, factor):
    half = len(x) // 2
    out = np.empty_like(x)
    for j in range(half):
        cos, sin = math.cos(position * frequencies[j]) * factor, math.sin(position * frequencies[j]) * factor
        out[j] = x[j] * cos - x[j + half] * sin
        out[j + half] = x[j + half] * cos + x[j] * sin
    return out


def act(name, x):
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])
    if name == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return np.maximum(x, 0) ** (2 if name == "relu2" else 1)


def capped(x, limit, kind):
    if not limit:
        return x
    return limit * np.tanh(x / limit) if kind == "soft" else np.clip(x, -limit, limit)


def sequence_logits(c, p, ids, documents):
    """Logits [T, V] of one sequence, with growing lists of keys and values; also every row of scores, per layer."""
    frequencies, factor = models.rope_frequencies(
        c.rope_dim, c.rope_theta, c.rope_scaling, c.max_position_embeddings, len(ids))  # fmt: skip
    frequencies = frequencies.numpy()
    heads, group = c.num_attention_heads, c.num_attention_heads // c.num_key_value_heads
    caches = [[] for _ in range(c.num_hidden_layers)]
    score_rows = [[] for _ in range(c.num_hidden_layers)]
    logits = []

    def weights(layer, name):
        return p[f"model.layers.{layer}.{name}"]

    def project(layer, name, x):
        y = weights(layer, name + ".weight") @ x
        bias = p.get(f"model.layers.{layer}.{name}.bias")
        return y if bias is None else y + bias

    def attend(layer, x, t):
        """Per head: query, key (of every position so far) and value; the attention output before o_proj."""
        spin = lambda v: turn(v, t, frequencies, factor)  # noqa: E731
        queries = []
        if c.attention_type == "mla":
            nope, rope, wide = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
            if c.q_lora_rank:
                low = gain(layer, True, "self_attn.q_a_layernorm", project(layer, "self_attn.q_a_proj", x))
                q = project(layer, "self_attn.q_b_proj", low)
            else:
                q = project(layer, "self_attn.q_proj", x)
            both = project(layer, "self_attn.kv_a_proj_with_mqa", x)
            low = gain(layer, True, "self_attn.kv_a_layernorm", both[: c.kv_lora_rank])
            kv, shared = project(layer, "self_attn.kv_b_proj", low), spin(both[c.kv_lora_rank :])
            keys, values = [], []
            for h in range(heads):
                mine = q[h * (nope + rope) : (h + 1) * (nope + rope)]
                queries.append(np.concatenate([mine[:nope], spin(mine[nope:])]))
                keys.append(np.concatenate([kv[h * (nope + wide) : h * (nope + wide) + nope], shared]))
                values.append(kv[h * (nope + wide) + nope : (h + 1) * (nope + wide)])
            scale = 1 / math.sqrt(nope + rope)
        else:
            d = c.head_dim
            q, k, v = (project(layer, f"self_attn.{n}_proj", x) for n in "qkv")
            queries = [spin(q[h * d : (h + 1) * d]) for h in range(heads)]
            keys = [spin(k[(h // group) * d : (h // group + 1) * d]) for h in range(heads)]
            values = [v[(h // group) * d : (h // group + 1) * d] for h in range(heads)]
            scale = 1 / math.sqrt(d)
            if c.attention_type == "ngpt":  # the paper's form: the learned scale on both sides
                s = weights(layer, "self_attn.sqk") * math.sqrt(c.hidden_size)
                queries = [s[h * d : (h + 1) * d] * q / np.linalg.norm(q) for h, q in enumerate(queries)]
                keys = [s[h * d : (h + 1) * d] * k / np.linalg.norm(k) for h, k in enumerate(keys)]
                scale = math.sqrt(d)
        scale = c.attention_scale or scale
        caches[layer].append((keys, values))
        window = c.window_of_layer(layer)
        seen = [j for j in range(t + 1) if (window is None or j > t - window) and documents[j] == documents[t]]
        rows, probabilities = [], []
        for h in range(heads):
            s = np.array([scale * np.dot(queries[h], caches[layer][j][0][h]) for j in seen])
            s = capped(s, c.attention_cap, c.attention_cap_type)
            e = np.exp(s - s.max())
            rows.append(s)
            probabilities.append(e / e.sum())
            assert abs(probabilities[-1].sum() - 1) < 1e-12
        score_rows[layer].append((np.array(rows), np.array(probabilities)))
        value = lambda j, h: caches[layer][j][1][h]  # noqa: E731
        if c.attention_type != "diff":
            return np.concatenate([sum(w * value(j, h) for w, j in zip(probabilities[h], seen)) for h in range(heads)])
        out, half, start = [], heads // 2, 0.8 - 0.6 * math.exp(-0.3 * layer)
        lq1, lk1, lq2, lk2 = (weights(layer, f"self_attn.lambda_{n}") for n in ("q1", "k1", "q2", "k2"))
        lam = math.exp(np.dot(lq1, lk1)) - math.exp(np.dot(lq2, lk2)) + start
        for i in range(half):
            pair = sum((a - lam * b) * np.concatenate([value(j, i), value(j, i + half)])
                       for a, b, j in zip(probabilities[i], probabilities[i + half], seen))  # fmt: skip
            out.append((1 - start) * norm_rms(pair, 1.0, c.rms_norm_eps))
        return np.concatenate(out)

    def gain(layer, on, name, x):
        return norm_rms(x, weights(layer, name + ".weight"), c.rms_norm_eps) if on else x

    length_one = lambda x: x / max(np.linalg.norm(x), 1e-12)  # noqa: E731
    root = math.sqrt(c.hidden_size)
    for t, token in enumerate(ids):
        h = c.embedding_multiplier * p["model.embed_tokens.weight"][token]
        for layer in range(c.num_hidden_layers):
            if c.attention_type == "ngpt":
                branch = length_one(project(layer, "self_attn.o_proj", attend(layer, h, t)))
                rate = np.abs(weights(layer, "attn_alpha") * 0.05 * root)
                h = length_one(length_one(h) + rate * (branch - length_one(h)))
                up = weights(layer, "mlp.su") * root * project(layer, "mlp.up_proj", h)
                gate = weights(layer, "mlp.sv") * root * project(layer, "mlp.gate_proj", h)
                branch = length_one(project(layer, "mlp.down_proj", up * act(c.hidden_act, gate)))
                rate = np.abs(weights(layer, "mlp_alpha") * 0.05 * root)
                h = length_one(length_one(h) + rate * (branch - length_one(h)))
                continue
            a = project(layer, "self_attn.o_proj", attend(layer, gain(layer, c.input_layernorm, "input_layernorm", h), t))
            h = h + c.residual_multiplier * gain(layer, c.post_attention_layernorm, "post_attention_branch_layernorm", a)
            n = gain(layer, c.pre_ffnn_layernorm, "post_attention_layernorm", h)
            inner = act(c.hidden_act, project(layer, "mlp.gate_proj", n)) * project(layer, "mlp.up_proj", n)
            m = project(layer, "mlp.down_proj", inner)
            h = h + c.residual_multiplier * gain(layer, c.post_ffnn_layernorm, "post_feedforward_layernorm", m)
        head = p["model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"]
        if c.attention_type == "ngpt":
            y = p["sz"] * root * (head @ h)
        else:
            y = head @ norm_rms(h, p["model.norm.weight"], c.rms_norm_eps)
        logits.append(capped(c.logit_scale * y, c.logit_cap, c.logit_cap_type))
    return np.array(logits), score_rows


def plain_loss(c, p, inputs, targets, documents):
    total, squares, count = 0.0, 0.0, 0
    similarity = [[] for _ in range(c.num_hidden_layers)]
    all_logits = []
    for b in range(len(inputs)):
        logits, score_rows = sequence_logits(c, p, inputs[b], documents[b])
        all_logits.append(logits)
        for t, target in enumerate(targets[b]):
            if target == models.IGNORE:
                continue
            log_z = math.log(np.exp(logits[t]).sum())
            total, squares, count = total + log_z - logits[t][target], squares + log_z**2, count + 1
        pairs = [(i, j) for i in range(c.num_attention_heads) for j in range(i)]
        for layer, rows in enumerate(score_rows):
            for scores, probability in rows if c.head_sim_loss else []:
                if c.head_sim_loss_type == "mse":  # one number per visible position
                    similarity[layer].extend(np.mean([(scores[i] - scores[j]) ** 2 for i, j in pairs], axis=0))
                else:  # one number per row
                    divergence = lambda a, b: float(np.sum(a * np.log(a / b)))  # noqa: E731
                    mix = [(probability[i], probability[j], (probability[i] + probability[j]) / 2) for i, j in pairs]
                    similarity[layer].append(-np.mean([(divergence(a, m) + divergence(b, m)) / 2 for a, b, m in mix]))
    loss = total / count + c.z_loss * squares / count
    if c.head_sim_loss:
        loss += c.head_sim_loss_weight * np.mean([np.mean(layer) for layer in similarity])
    return loss, np.array(all_logits)


def check_values(c, params, ids, targets, documents):
    p = {n: v.double().numpy() for n, v in params.items()}
    whose = documents.tolist() if documents is not None else [[0] * targets.shape[1]] * len(ids)
    expected, logits = plain_loss(c, p, ids[:, :-1].tolist(), targets.tolist(), whose)
    doubles = {n: v.double() for n, v in params.items()}
    parts = models.loss(c, doubles, ids[:, :-1], targets, documents)
    worst = max(abs(parts["loss"].item() - expected), np.abs(parts["logits"].numpy() - logits).max())
    assert worst < 1e-10, f"loss or logits differ by {worst}"
    return worst


# ---------------------------------------------------------------------------------------- gradients, causality, the rest


def check_gradients(c, params, ids, targets, documents, generator):
    """Central differences of the loss along one random direction per parameter."""
    doubles = {n: v.double() for n, v in params.items()}
    _, grads = oracle.evaluate(c, params, ids[:, :-1], targets, documents, torch.float64)
    largest = max(g.norm().item() for g in grads.values())
    worst = 0.0
    for name in params:
        direction = torch.randn(params[name].shape, generator=generator).double()
        direction /= direction.norm()
        values = []
        for step in (1e-5, -1e-5):
            moved = dict(doubles, **{name: doubles[name] + step * direction})
            values.append(models.loss(c, moved, ids[:, :-1], targets, documents)["loss"].item())
        numeric, exact = (values[0] - values[1]) / 2e-5, (grads[name] * direction).sum().item()
        worst = max(worst, abs(numeric - exact) / (abs(exact) + 1e-3 * largest))
    # A kink (relu, hard cap) inside the step makes the difference quotient wrong by the curvature it skips.
    kinked = c.hidden_act == "relu" or "hard" in (c.attention_cap_type, c.logit_cap_type)
    assert worst < (1e-3 if kinked else 1e-6), f"gradient of a parameter is off by {worst}"
    return worst


def check_causality(c, params, ids):
    doubles = {n: v.double() for n, v in params.items()}
    before, _ = models.forward(c, doubles, ids)
    position = ids.shape[1] // 2
    changed = ids.clone()
    changed[:, position] = (changed[:, position] + 1) % c.vocab_size
    after, _ = models.forward(c, doubles, changed)
    moved = (before - after).abs().amax(dim=(0, 2)) > 0
    assert not moved[:position].any(), "a token changed an earlier logit"
    assert moved[position], "a token did not change its own logit"
    windows = [c.window_of_layer(i) for i in range(c.num_hidden_layers)]
    if None in windows:
        assert moved[position:].all(), "a token is not seen by a later one"
    else:
        reach = position + sum(w - 1 for w in windows)
        assert not moved[reach + 1 :].any(), "a token is seen beyond its window"
    parted = torch.arange(ids.shape[1])[None].ge(position).long().expand(ids.shape)
    first, _ = models.forward(c, doubles, ids[:, :position])
    both, layers = models.forward(c, doubles, ids, parted)
    assert (both[:, :position] - first).abs().max() < 1e-12
    # Rotary positions are relative, so a document may start anywhere; but nGPT's learned scale comes after the rotation.
    if not c.rope_scaling and c.attention_type != "ngpt":
        second, _ = models.forward(c, doubles, ids[:, position:])
        assert (both[:, position:] - second).abs().max() < 1e-10, "documents are not separate"


def check_optimizers():
    tensors, _ = make_golden.optimizer_trajectories()
    w0, g1 = tensors["w0"], tensors["g1"]
    expected = w0 - 1e-3 * g1 / (g1.abs() + 1e-4)
    assert (tensors["adamw_no_decay.1"] - expected).abs().max() < 1e-12
    generator = torch.Generator().manual_seed(3)
    for shape in ((32, 48), (48, 32)):
        singular = torch.linalg.svdvals(make_golden.newton_schulz(torch.randn(shape, generator=generator).double()))
        assert 0.6 < singular.min() and singular.max() < 1.3, singular
    m = w = torch.zeros(1)
    assert torch.equal(make_golden.lion(w, [torch.ones(1)], 0.5, 0.9, 0.99, 0.0)[0], m - 0.5)


def main():
    generator = torch.Generator().manual_seed(1)
    cases = {**oracle.CASES, **{"golden/" + n: s for n, s in make_golden.GOLDEN.items()}}
    for name, spec in cases.items():
        c, params, ids, targets, documents = drawn = oracle.draw(name.split("/")[-1], spec, 0)
        try:
            value, gradient = check_values(*drawn), check_gradients(*drawn, generator)
            check_causality(c, params, ids)
        except AssertionError as error:
            sys.exit(f"{name}: {error}")
        print(f"{name:26s} values {value:.1e}  gradients {gradient:.1e}")
    check_optimizers()
    print(f"{len(cases)} passed, 0 failed")


if __name__ == "__main__":
    main()
