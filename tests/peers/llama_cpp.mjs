// llama.cpp's opinion of a GGUF file.
//
//     node llama_cpp.mjs generate PEERS FILE.gguf OUT.json PROMPT…    (PEERS/node_modules holds the packages)
//     node llama_cpp.mjs compare OUT.json LOGITS.safetensors TOLERANCE
//
// generate: parses the file with @huggingface/gguf, loads it with node-llama-cpp, and continues every prompt by
// `length` greedy tokens. Writes {"ids": [[…], …], "prompts": [length of each], "logits": [[of each token], …]}.
// compare: LOGITS.safetensors holds the logits [B, T, V] of the same ids; each generated token must be the likeliest
// there too, its logit within the tolerance.
//
// Exit status 77: a package is absent.
import { pathToFileURL } from 'node:url'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const length = 64

async function load(peers, name) {
  const folder = path.join(peers, 'node_modules', name)
  try {
    const { main } = JSON.parse(readFileSync(path.join(folder, 'package.json')))
    return await import(pathToFileURL(path.join(folder, main)))
  } catch (error) {
    console.error(error.message.split('\n')[0])
    process.exit(77)
  }
}

// The step that asks for the next token after `id`, and for its logit.
const ask = (id) => [id, { generateNext: { token: true, logits: true, options: { temperature: 0 } } }]

async function generate(peers, file, out, prompts) {
  const { gguf } = await load(peers, '@huggingface/gguf')
  const { getLlama, LlamaLogLevel } = await load(peers, 'node-llama-cpp')
  const parsed = await gguf(file, { allowLocalFile: true })
  if (!['llama', 'qwen3'].includes(parsed.metadata['general.architecture'])) throw new Error('architecture')

  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, progressLogs: false })
  const model = await llama.loadModel({ modelPath: file, useMmap: false })
  const context = await model.createContext({
    contextSize: 128, threads: 1, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32',
    flashAttention: false
  })
  const sequence = context.getSequence()
  const result = { ids: [], prompts: [], logits: [] }
  for (const prompt of prompts) {
    const ids = [...model.tokenize(prompt)]
    if (model.detokenize(ids) !== prompt) throw new Error(`'${prompt}' is not what its tokens say`)
    result.prompts.push(ids.length)
    const logits = []
    await sequence.clearHistory()
    let input = [...ids.slice(0, -1), ask(ids.at(-1))]
    while (logits.length < length) {
      const steps = await sequence.controlledEvaluate(input)
      const next = steps[input.length - 1].next
      ids.push(next.token)
      logits.push(next.logits.get(next.token))
      input = [ask(next.token)]
    }
    result.ids.push(ids)
    result.logits.push(logits)
  }
  writeFileSync(out, JSON.stringify(result))
  process.exit(0)
}

function compare(theirs, ours, tolerance) {
  const { ids, prompts, logits } = JSON.parse(readFileSync(theirs))
  const bytes = readFileSync(ours)
  const size = Number(bytes.readBigUInt64LE(0))
  const [rows, columns, vocabulary] = JSON.parse(bytes.subarray(8, 8 + size).toString()).logits.shape
  const logit = (row, column, id) => bytes.readFloatLE(8 + size + 4 * ((row * columns + column) * vocabulary + id))
  let worst = 0
  for (let row = 0; row < rows; ++row)
    for (let i = 0; i < length; ++i) {
      const column = prompts[row] - 1 + i, token = ids[row][column + 1]
      let best = 0
      for (let id = 1; id < vocabulary; ++id) if (logit(row, column, id) > logit(row, column, best)) best = id
      if (best !== token) {
        console.error(`row ${row}, token ${i}: llama.cpp says ${token}, we say ${best}`)
        process.exit(1)
      }
      worst = Math.max(worst, Math.abs(logit(row, column, token) - logits[row][i]))
    }
  console.log(`${rows * length} tokens agree, the logits within ${worst.toExponential(1)}`)
  process.exit(worst <= tolerance ? 0 : 1)
}

const [what, ...rest] = process.argv.slice(2)
if (what === 'generate') await generate(rest[0], rest[1], rest[2], rest.slice(3))
else compare(rest[0], rest[1], Number(rest[2]))
