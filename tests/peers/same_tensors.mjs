// Whether two folders or files of safetensors hold the same tensors, bit for bit; prints how many.
//
//     node same_tensors.mjs A B
import { readFileSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'

function read(where) {
  const files = statSync(where).isDirectory()
    ? readdirSync(where).filter((name) => /^model.*\.safetensors$/.test(name)).map((name) => path.join(where, name))
    : [where]
  const tensors = new Map()
  for (const file of files) {
    const bytes = readFileSync(file), size = Number(bytes.readBigUInt64LE(0))
    for (const [name, entry] of Object.entries(JSON.parse(bytes.subarray(8, 8 + size)))) {
      if (name === '__metadata__') continue
      const [begin, end] = entry.data_offsets
      tensors.set(name, `${entry.dtype} ${entry.shape} ${bytes.subarray(8 + size + begin, 8 + size + end).toString('hex')}`)
    }
  }
  return tensors
}

const [a, b] = process.argv.slice(2).map(read)
for (const [name, value] of a)
  if (b.get(name) !== value) {
    console.error(`${name} differs`)
    process.exit(1)
  }
console.log(a.size)
process.exit(a.size === b.size && a.size > 0 ? 0 : 1)
