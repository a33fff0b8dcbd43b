"""The five variants (mha, gqa, diff, ngpt, mla) in plain PyTorch: the oracle of the C++ models.

Written for reading, not for speed: parameters are a dict {safetensors name: tensor}, a model is a function of that dict.
The whole computation runs in the dtype of the parameters (f64 for the truth, f32); `Bf16Operands` rounds the operands of
every matrix product to bf16 and keeps the rest in f32, which is what mixed-precision training computes.

    config = Config(json.load(open("config.json")))
    logits, _ = forward(config, params, ids)                    # ids [B, T] -> [B, T, V]
    parts = loss(config, params, ids[:, :-1], ids[:, 1:])       # parts["loss"].backward()
"""

import math

import torch
import torch.nn.functional as F

IGNORE = -100
VARIANTS = ("mha", "gqa", "diff", "ngpt", "mla")

DEFAULTS = dict(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=None,
    head_dim=None, hidden_act="silu", max_position_embeddings=2048, rope_theta=10000.0, rope_scaling=None,
    rms_norm_eps=1e-6, initializer_range=0.02, tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
    attention_output_bias=None, qk_norm=False, lora=None,
    attention_scale=0.0, attention_cap=None, attention_cap_type="soft", logit_cap=None, logit_cap_type="soft",
    logit_scale=1.0, embedding_multiplier=1.0, residual_multiplier=1.0,
    input_layernorm=True, pre_ffnn_layernorm=True, post_attention_layernorm=False, post_ffnn_layernorm=False,
    sliding_window=None, sliding_window_pattern=None,
    q_lora_rank=None, kv_lora_rank=None, qk_rope_head_dim=None, qk_nope_head_dim=None, v_head_dim=None,
    lambda_std_dev=0.1, z_loss=0.0,
    head_sim_loss=False, head_sim_loss_weight=1.0, head_sim_loss_after_warmup=False, head_sim_loss_type="mse",
    attention_dropout=0.0, residual_dropout=0.0, embedding_dropout=0.0, gradient_checkpointing="none",
)  # fmt: skip
ALIASES = dict(attn_bias="attention_bias", attention_multiplier="attention_scale", q_compressed="q_lora_rank",
               kv_compressed="kv_lora_rank", rope_head_dim="qk_rope_head_dim")  # fmt: skip


class Config:
    """A config.json with its defaults filled in. Unknown keys and impossible values raise ValueError."""

    def __init__(self, values):
        values = {ALIASES.get(k, k): v for k, v in values.items()}
        if "logits_scaling" in values:  # Granite's: divides
            if "logit_scale" in values:
                raise ValueError("logit_scale and logits_scaling exclude each other")
            values["logit_scale"] = 1.0 / values.pop("logits_scaling")
        unknown = set(values) - set(DEFAULTS) - {"attention_type", "vocab_size"}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        self.__dict__.update(DEFAULTS)
        self.__dict__.update(values)
        heads = self.num_attention_heads
        if self.num_key_value_heads is None:
            self.num_key_value_heads = 2 if self.attention_type in ("gqa", "diff", "ngpt") else heads
        self.head_dim = self.head_dim or self.hidden_size // heads
        if self.attention_output_bias is None:
            self.attention_output_bias = self.attention_bias
        if self.attention_type not in VARIANTS:
            raise ValueError(f"attention_type {self.attention_type}")
        if self.attention_type == "mha" and self.num_key_value_heads != heads:
            raise ValueError("mha has as many key/value heads as heads")
        if heads % self.num_key_value_heads or (self.attention_type == "diff" and heads % 2) or self.head_dim % 2:
            raise ValueError("heads do not divide, or an odd width")
        if self.attention_type == "mla":
            self.kv_lora_rank = self.kv_lora_rank or self.hidden_size // 4
            self.qk_rope_head_dim = self.qk_rope_head_dim or self.head_dim // 2
            self.qk_nope_head_dim = self.qk_nope_head_dim or self.head_dim
            self.v_head_dim = self.v_head_dim or self.head_dim
        if self.attention_type == "ngpt":
            if self.attention_bias or self.mlp_bias or self.residual_multiplier != 1.0:
                raise ValueError("ngpt has no biases and no residual multiplier")
            self.input_layernorm = self.pre_ffnn_layernorm = False
            self.post_attention_layernorm = self.post_ffnn_layernorm = False

    @property
    def rope_dim(self):
        return self.qk_rope_head_dim if self.attention_type == "mla" else self.head_dim

    @property
    def score_scale(self):
        if self.attention_scale:
            return self.attention_scale
        if self.attention_type == "ngpt":
            return math.sqrt(self.head_dim)
        width = self.head_dim
        if self.attention_type == "mla":
            width = self.qk_nope_head_dim + self.qk_rope_head_dim
        return 1.0 / math.sqrt(width)

    def window_of_layer(self, layer):
        """The sliding window of a layer; None for full attention (every pattern-th layer)."""
        pattern = self.sliding_window_pattern
        full = self.sliding_window is None or (pattern and (layer + 1) % pattern == 0)
        return None if full else self.sliding_window


# ---------------------------------------------------------------------------------------------------- parameters


def parameter_shapes(c):
    """{name: shape} of every stored tensor, in the order of the model."""
    hidden, inner, heads, kv, d = (
        c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim)  # fmt: skip
    shapes = {"model.embed_tokens.weight": (c.vocab_size, hidden)}

    def linear(name, out, width, bias):
        shapes[name + ".weight"] = (out, width)
        if bias:
            shapes[name + ".bias"] = (out,)
        if c.lora and name.split(".")[-1] in c.lora["targets"]:
            shapes[name + ".lora_A.weight"] = (c.lora["r"], width)
            shapes[name + ".lora_B.weight"] = (out, c.lora["r"])

    for i in range(c.num_hidden_layers):
        layer = f"model.layers.{i}."
        attn = layer + "self_attn."
        if c.input_layernorm:
            shapes[layer + "input_layernorm.weight"] = (hidden,)
        if c.attention_type == "mla":  # biases where DeepSeek-V3 has them
            query = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
            if c.q_lora_rank:
                linear(attn + "q_a_proj", c.q_lora_rank, hidden, c.attention_bias)
                shapes[attn + "q_a_layernorm.weight"] = (c.q_lora_rank,)
                linear(attn + "q_b_proj", query, c.q_lora_rank, False)
            else:
                linear(attn + "q_proj", query, hidden, False)
            linear(attn + "kv_a_proj_with_mqa", c.kv_lora_rank + c.qk_rope_head_dim, hidden, c.attention_bias)
            shapes[attn + "kv_a_layernorm.weight"] = (c.kv_lora_rank,)
            linear(attn + "kv_b_proj", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank, False)
            linear(attn + "o_proj", hidden, heads * c.v_head_dim, c.attention_output_bias)
        else:
            linear(attn + "q_proj", heads * d, hidden, c.attention_bias)
            linear(attn + "k_proj", kv * d, hidden, c.attention_bias)
            linear(attn + "v_proj", kv * d, hidden, c.attention_bias)
            linear(attn + "o_proj", hidden, heads * d, c.attention_output_bias)
            if c.qk_norm:
                shapes[attn + "q_norm.weight"] = shapes[attn + "k_norm.weight"] = (d,)
        if c.attention_type == "diff":
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                shapes[attn + name] = (d,)
        if c.attention_type == "ngpt":
            shapes[attn + "sqk"] = (heads * d,)
            shapes[layer + "attn_alpha"] = (hidden,)
        if c.post_attention_layernorm:
            shapes[layer + "post_attention_branch_layernorm.weight"] = (hidden,)
        if c.pre_ffnn_layernorm:
            shapes[layer + "post_attention_layernorm.weight"] = (hidden,)
        linear(layer + "mlp.gate_proj", inner, hidden, c.mlp_bias)
        linear(layer + "mlp.up_proj", inner, hidden, c.mlp_bias)
        linear(layer + "mlp.down_proj", hidden, inner, c.mlp_bias)
        if c.attention_type == "ngpt":
            shapes[layer + "mlp.su"] = (inner,)
            shapes[layer + "mlp.sv"] = (inner,)
            shapes[layer + "mlp_alpha"] = (hidden,)
        if c.post_ffnn_layernorm:
            shapes[layer + "post_feedforward_layernorm.weight"] = (hidden,)
    if c.attention_type == "ngpt":
        shapes["sz"] = (c.vocab_size,)
    else:
        shapes["model.norm.weight"] = (hidden,)
    if not c.tie_word_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, hidden)
    return shapes


def is_matrix(name):
    """Weight decay applies to these: matrices without the embedding."""
    return name.endswith("proj.weight") or name.endswith("_with_mqa.weight") or name == "lm_head.weight"


def stored_init(c, name):
    """What a learned scale of nGPT holds at the start; the scale itself is stored * (init / stored_init)."""
    return 1.0 if name.endswith((".su", ".sv")) else 1.0 / math.sqrt(c.hidden_size)


def init_parameters(c, seed=0, dtype=torch.float32):
    """Fresh weights by the rules of the specification."""
    generator = torch.Generator().manual_seed(seed)
    std = c.initializer_range if c.attention_type != "ngpt" else 1.0 / math.sqrt(c.hidden_size)
    params = {}
    for name, shape in parameter_shapes(c).items():
        if name.endswith(".bias"):
            value = torch.zeros(shape)
        elif ".lambda_" in name:
            value = torch.randn(shape, generator=generator) * c.lambda_std_dev
        elif c.attention_type == "ngpt" and len(shape) == 1:
            value = torch.full(shape, stored_init(c, name))
        elif len(shape) == 1:
            value = torch.ones(shape)
        else:
            value = torch.randn(shape, generator=generator) * std
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                value = value / math.sqrt(2 * c.num_hidden_layers)
        params[name] = value.to(dtype)
    if c.attention_type == "ngpt":
        normalize_ngpt(params)
    return params


def normalize_ngpt(params):
    """Unit length along the hidden_size axis: the output axis of o_proj and down_proj, the input axis of the others."""
    with torch.no_grad():
        for name, w in params.items():
            if w.dim() == 2:
                axis = 0 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                w.copy_(unit(w, axis))


# -------------------------------------------------------------------------------------------------- building blocks


class Numerics:
    """How matrix products are computed: here in the dtype of their operands."""

    @staticmethod
    def linear(x, weight, bias=None):
        return F.linear(x, weight, bias)

    @staticmethod
    def matmul(a, b):
        return torch.matmul(a, b)


class Bf16Operands(Numerics):
    """Operands rounded to bf16, f32 accumulation; gradients pass through the same rounding on their way back."""

    @staticmethod
    def _round(x):
        return x.to(torch.bfloat16).to(torch.float32)

    @classmethod
    def linear(cls, x, weight, bias=None):
        return F.linear(cls._round(x), cls._round(weight), bias)

    @classmethod
    def matmul(cls, a, b):
        return torch.matmul(cls._round(a), cls._round(b))


ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x) ** 2,
}


def rms(x, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def unit(x, axis=-1):
    return x / x.norm(dim=axis, keepdim=True).clamp_min(1e-12)


def cap(x, limit, kind):
    if not limit:
        return x
    return limit * torch.tanh(x / limit) if kind == "soft" else x.clamp(-limit, limit)


def rope_frequencies(dim, theta, scaling, max_position_embeddings, length=0):
    """Inverse frequencies [dim/2] (f64) and the factor on cos and sin, as Hugging Face's modeling_rope_utils."""
    freq = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if not scaling:
        return freq, 1.0
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor", 1.0)
    original = scaling.get("original_max_position_embeddings") or max_position_embeddings
    if kind == "default":
        return freq, 1.0
    if kind == "linear":
        return freq / factor, 1.0
    if kind == "dynamic":  # the base grows once a sequence is longer than the model was made for
        length = max(length, max_position_embeddings)
        base = theta * (factor * length / max_position_embeddings - (factor - 1)) ** (dim / (dim - 2))
        return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim), 1.0
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        wavelength = 2 * math.pi / freq
        smooth = ((original / wavelength - low) / (high - low)).clamp(0, 1)
        return (1 - smooth) * freq / factor + smooth * freq, 1.0
    if kind == "yarn":

        def magnitude(scale, m=1.0):
            return 1.0 if scale <= 1 else 0.1 * m * math.log(scale) + 1.0

        def dim_of_rotations(rotations):
            return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

        attention_factor = scaling.get("attention_factor")
        if attention_factor is None:
            m, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
            attention_factor = magnitude(factor, m) / magnitude(factor, all_dim) if m and all_dim else magnitude(factor)
        low = dim_of_rotations(scaling.get("beta_fast") or 32)
        high = dim_of_rotations(scaling.get("beta_slow") or 1)
        if scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        span = high - low or 0.001
        ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / span).clamp(0, 1)
        return freq / factor * ramp + freq * (1 - ramp), attention_factor
    raise ValueError(f"rope_scaling {kind}")


def rope_tables(c, length, dtype):
    """cos, sin: [T, rope_dim/2]."""
    freq, factor = rope_frequencies(c.rope_dim, c.rope_theta, c.rope_scaling, c.max_position_embeddings, length)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * freq[None, :]
    return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)


def rotate(x, rope):
    """x [B, heads, T, d]; pairs (x_j, x_{j + d/2})."""
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def visible_positions(length, window=None, documents=None):
    """[T, T] or [B, 1, T, T]: True where query i (row) may see key j (column)."""
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    visible = j <= i
    if window is not None:
        visible = visible & (j > i - window)
    if documents is not None:
        visible = visible & (documents[:, None, :, None] == documents[:, None, None, :])
    return visible


# ------------------------------------------------------------------------------------------------------- attention


class Layer:
    """One layer's view of the parameters, and what all variants share."""

    def __init__(self, c, params, index, rope, visible, numerics):
        self.c, self.index, self.rope, self.visible, self.numerics = c, index, rope, visible, numerics
        self.params, self.prefix = params, f"model.layers.{index}."
        self.scores = None  # capped, before the mask: [B, H, T, T]

    def get(self, name):
        return self.params.get(self.prefix + name)

    def linear(self, name, x):
        y = self.numerics.linear(x, self.get(name + ".weight"), self.get(name + ".bias"))
        low = self.get(name + ".lora_A.weight")
        if low is None:
            return y
        scale = self.c.lora["alpha"] / self.c.lora["r"]
        return y + scale * self.numerics.linear(self.numerics.linear(x, low), self.get(name + ".lora_B.weight"))

    def norm(self, name, x):
        return rms(x, self.c.rms_norm_eps) * self.get(name + ".weight")

    def heads(self, x, count):
        """[B, T, count * d] -> [B, count, T, d]."""
        return x.view(*x.shape[:2], count, -1).transpose(1, 2)

    def probabilities(self, q, k):
        """Softmax over the visible keys. q [B, H, T, d], k [B, H, T, d]."""
        scores = self.c.score_scale * self.numerics.matmul(q, k.transpose(-1, -2))
        self.scores = cap(scores, self.c.attention_cap, self.c.attention_cap_type)
        return self.scores.masked_fill(~self.visible, -math.inf).softmax(-1)

    def out(self, x):
        """[B, heads, T, d] -> concatenated heads -> o_proj."""
        return self.linear("self_attn.o_proj", x.transpose(1, 2).flatten(2))

    def qkv(self, x):
        """q [B, H, T, d], and k, v repeated to H heads: query head h reads key/value head floor(h / (H / K))."""
        c, repeat = self.c, self.c.num_attention_heads // self.c.num_key_value_heads
        q = self.heads(self.linear("self_attn.q_proj", x), c.num_attention_heads)
        k = self.heads(self.linear("self_attn.k_proj", x), c.num_key_value_heads)
        if c.qk_norm:
            q, k = self.norm("self_attn.q_norm", q), self.norm("self_attn.k_norm", k)
        q, k = rotate(q, self.rope), rotate(k, self.rope)
        v = self.heads(self.linear("self_attn.v_proj", x), c.num_key_value_heads)
        return q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)


def grouped_attention(layer, x):
    q, k, v = layer.qkv(x)
    return layer.out(layer.numerics.matmul(layer.probabilities(q, k), v))


def lambda_init(layer_index):
    return 0.8 - 0.6 * math.exp(-0.3 * layer_index)


def differential_attention(layer, x):
    """arXiv 2410.05258: heads i and i + H/2 are the two maps of differential head i, over one value of width 2d."""
    q, k, v = layer.qkv(x)
    half = layer.c.num_attention_heads // 2
    p = layer.probabilities(q, k)
    v = torch.cat((v[:, :half], v[:, half:]), -1)
    dot = lambda n: (layer.get("self_attn.lambda_q" + n) * layer.get("self_attn.lambda_k" + n)).sum()  # noqa: E731
    start = lambda_init(layer.index)
    lam = dot("1").exp() - dot("2").exp() + start
    out = layer.numerics.matmul(p[:, :half], v) - lam * layer.numerics.matmul(p[:, half:], v)
    return layer.out((1 - start) * rms(out, layer.c.rms_norm_eps))


def normalized_attention(layer, x):
    """nGPT: unit queries and keys; both learned scales act on the query, so that grouped keys stay shared."""
    c = layer.c
    q, k, v = layer.qkv(x)
    scale = (layer.get("self_attn.sqk") * math.sqrt(c.hidden_size)).view(1, c.num_attention_heads, 1, c.head_dim)
    return layer.out(layer.numerics.matmul(layer.probabilities(scale.square() * unit(q), unit(k)), v))


def latent_attention(layer, x):
    """Multi-head latent attention (DeepSeek-V2): keys and values from one compressed vector, one shared rotary key."""
    c, heads = layer.c, layer.c.num_attention_heads
    if c.q_lora_rank:
        q = layer.linear("self_attn.q_b_proj", layer.norm("self_attn.q_a_layernorm", layer.linear("self_attn.q_a_proj", x)))
    else:
        q = layer.linear("self_attn.q_proj", x)
    q_nope, q_rope = layer.heads(q, heads).split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
    latent, k_rope = layer.linear("self_attn.kv_a_proj_with_mqa", x).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
    kv = layer.linear("self_attn.kv_b_proj", layer.norm("self_attn.kv_a_layernorm", latent))
    k_nope, v = layer.heads(kv, heads).split((c.qk_nope_head_dim, c.v_head_dim), -1)
    k_rope = rotate(layer.heads(k_rope, 1), layer.rope).expand(-1, heads, -1, -1)
    q = torch.cat((q_nope, rotate(q_rope, layer.rope)), -1)
    k = torch.cat((k_nope, k_rope), -1)
    return layer.out(layer.numerics.matmul(layer.probabilities(q, k), v))


# ----------------------------------------------------------------------------------------------------------- layers


def mlp(layer, x):
    act = ACTIVATIONS[layer.c.hidden_act]
    return layer.linear("mlp.down_proj", act(layer.linear("mlp.gate_proj", x)) * layer.linear("mlp.up_proj", x))


def residual_layer(layer, attention, h):
    c = layer.c
    a = attention(layer, layer.norm("input_layernorm", h) if c.input_layernorm else h)
    if c.post_attention_layernorm:
        a = layer.norm("post_attention_branch_layernorm", a)
    h = h + c.residual_multiplier * a
    m = mlp(layer, layer.norm("post_attention_layernorm", h) if c.pre_ffnn_layernorm else h)
    if c.post_ffnn_layernorm:
        m = layer.norm("post_feedforward_layernorm", m)
    return h + c.residual_multiplier * m


def normalized_layer(layer, h):
    """nGPT (arXiv 2410.01131): every step moves on the unit sphere."""
    c, root = layer.c, math.sqrt(layer.c.hidden_size)

    def step(h, branch, name):
        h, alpha = unit(h), (layer.get(name) * 0.05 * root).abs()
        return unit(h + alpha * (unit(branch) - h))

    h = step(h, normalized_attention(layer, h), "attn_alpha")
    u = layer.get("mlp.su") * root * layer.linear("mlp.up_proj", h)
    gate = layer.get("mlp.sv") * root * layer.linear("mlp.gate_proj", h)
    return step(h, layer.linear("mlp.down_proj", u * ACTIVATIONS[c.hidden_act](gate)), "mlp_alpha")


ATTENTION = {"mha": grouped_attention, "gqa": grouped_attention, "diff": differential_attention, "mla": latent_attention}


def forward(c, params, ids, documents=None, numerics=Numerics):
    """Logits [B, T, V] and the layers (whose scores and visible positions the head similarity needs)."""
    embedding = params["model.embed_tokens.weight"]
    length = ids.shape[1]
    rope = rope_tables(c, length, embedding.dtype)
    h = c.embedding_multiplier * embedding[ids]
    layers = []
    for i in range(c.num_hidden_layers):
        layer = Layer(c, params, i, rope, visible_positions(length, c.window_of_layer(i), documents), numerics)
        if c.attention_type == "ngpt":
            h = normalized_layer(layer, h)
        else:
            h = residual_layer(layer, ATTENTION[c.attention_type], h)
        layers.append(layer)
    head = embedding if c.tie_word_embeddings else params["lm_head.weight"]
    if c.attention_type == "ngpt":
        logits = params["sz"] * math.sqrt(c.hidden_size) * numerics.linear(h, head)
    else:
        logits = numerics.linear(rms(h, c.rms_norm_eps) * params["model.norm.weight"], head)
    return cap(c.logit_scale * logits, c.logit_cap, c.logit_cap_type), layers


# ------------------------------------------------------------------------------------------------------------- loss


def entropy(p):
    """-sum p ln p over the last axis; masked positions (p = 0) give neither value nor gradient."""
    positive = p > 0
    return -(p * torch.where(positive, p, torch.ones_like(p)).log()).sum(-1)


def head_similarity(c, layer):
    """`mse`: mean over head pairs and visible positions of (S_i - S_j)^2. `jsd`: minus the mean over head pairs and
    rows of the Jensen-Shannon divergence (natural logarithm) of the masked softmax rows."""
    s, count = layer.scores, layer.c.num_attention_heads
    pairs = count * (count - 1) / 2
    visible = layer.visible.expand(s.shape[0], 1, *s.shape[2:])[:, 0]
    if c.head_sim_loss_type == "mse":
        spread = (count * s.square().sum(1) - s.sum(1).square()) / pairs
        return spread[visible].mean()
    p = s.masked_fill(~layer.visible, -math.inf).softmax(-1)
    total = 0.0
    for i in range(count):
        for j in range(i):
            total = total + entropy((p[:, i] + p[:, j]) / 2) - (entropy(p[:, i]) + entropy(p[:, j])) / 2
    return -(total / pairs).mean()


def loss(c, params, inputs, targets, documents=None, numerics=Numerics):
    """{"loss": the objective, "cross_entropy", "z_loss", "head_similarity": its unweighted parts, "tokens": count}.
    inputs, targets [B, T]; targets equal to -100 are ignored; means are over the others."""
    logits, layers = forward(c, params, inputs, documents, numerics)
    valid = targets != IGNORE
    log_z = logits.logsumexp(-1)
    picked = logits.gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    parts = {"tokens": int(valid.sum()), "cross_entropy": (log_z - picked)[valid].mean()}
    parts["z_loss"] = log_z[valid].square().mean()
    parts["loss"] = parts["cross_entropy"]
    if c.z_loss:
        parts["loss"] = parts["loss"] + c.z_loss * parts["z_loss"]
    if c.head_sim_loss:
        parts["head_similarity"] = sum(head_similarity(c, layer) for layer in layers) / len(layers)
        if c.head_sim_loss_weight:
            parts["loss"] = parts["loss"] + c.head_sim_loss_weight * parts["head_similarity"]
    parts["logits"] = logits
    return parts
