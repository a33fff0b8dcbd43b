// Writes FOLDER as somebody else's program would write a small Llama: config.json in Hugging Face's words, weights in
// bf16, in two shards with an index, each tensor's bytes made up here.
//
//     node write_llama.mjs FOLDER
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const folder = process.argv[2]
const hidden = 32, inner = 48, layers = 2, heads = 4, keys = 2, width = 8, vocabulary = 260

const shapes = { 'model.embed_tokens.weight': [vocabulary, hidden], 'model.norm.weight': [hidden] }
for (let i = 0; i < layers; ++i) {
  const layer = `model.layers.${i}.`
  shapes[layer + 'input_layernorm.weight'] = shapes[layer + 'post_attention_layernorm.weight'] = [hidden]
  shapes[layer + 'self_attn.q_proj.weight'] = [heads * width, hidden]
  shapes[layer + 'self_attn.k_proj.weight'] = shapes[layer + 'self_attn.v_proj.weight'] = [keys * width, hidden]
  shapes[layer + 'self_attn.o_proj.weight'] = [hidden, heads * width]
  shapes[layer + 'mlp.gate_proj.weight'] = shapes[layer + 'mlp.up_proj.weight'] = [inner, hidden]
  shapes[layer + 'mlp.down_proj.weight'] = [hidden, inner]
}

// The upper halves of floats: gains near 1, anything else a pseudo-random number of up to 0.2.
let seed = 1
function bf16(shape) {
  const count = shape.reduce((a, b) => a * b), floats = new Float32Array(count)
  for (let i = 0; i < count; ++i) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    floats[i] = (shape.length === 1 ? 1 : 0) + 0.2 * (seed / 2 ** 31 - 1)
  }
  const words = new Uint16Array(floats.buffer)
  return Buffer.from(Uint16Array.from({ length: count }, (_, i) => words[2 * i + 1]).buffer)
}

function write(file, names) {
  const header = {}, parts = []
  let offset = 0
  for (const name of names) {
    const bytes = bf16(shapes[name])
    header[name] = { dtype: 'BF16', shape: shapes[name], data_offsets: [offset, offset + bytes.length] }
    offset += bytes.length
    parts.push(bytes)
  }
  const text = Buffer.from(JSON.stringify(header)), length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path.join(folder, file), Buffer.concat([length, text, ...parts]))
}

mkdirSync(folder, { recursive: true })
writeFileSync(path.join(folder, 'config.json'), JSON.stringify({
  architectures: ['LlamaForCausalLM'], model_type: 'llama', vocab_size: vocabulary, hidden_size: hidden,
  intermediate_size: inner, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: keys,
  hidden_act: 'silu', max_position_embeddings: 64, rope_theta: 500000, rms_norm_eps: 1e-5, tie_word_embeddings: true,
  attention_bias: false, bos_token_id: 1, eos_token_id: [2, 3], pretraining_tp: 1, torch_dtype: 'bfloat16',
  transformers_version: '4.40.0', use_cache: true
}))
const names = Object.keys(shapes), half = names.length >> 1
const files = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
write(files[0], names.slice(0, half))
write(files[1], names.slice(half))
writeFileSync(path.join(folder, 'model.safetensors.index.json'), JSON.stringify({
  metadata: {}, weight_map: Object.fromEntries(names.map((name, i) => [name, files[i < half ? 0 : 1]]))
}))
