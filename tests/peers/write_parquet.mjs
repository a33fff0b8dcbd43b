// Writes FOLDER/NAME.parquet with two independent writers, in every variant that they offer for strings, and beside each
// FOLDER/NAME.jsonl with the texts that it must give.
//
//     node write_parquet.mjs PEERS FOLDER      (PEERS/node_modules has @duckdb/node-api and hyparquet-writer)
//
// Exit status 77: a package is absent.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import path from 'node:path'

const [peers, folder] = process.argv.slice(2)
const require = createRequire(path.resolve(peers, 'package.json'))
let duckdb, hyparquet
try {
  duckdb = require('@duckdb/node-api')
  hyparquet = await import(pathToFileURL(require.resolve('hyparquet-writer')))
} catch (error) {
  console.error(error.message.split('\n')[0])
  process.exit(77)
}

// Texts that differ in what encodings care about: shared beginnings, few or many values, empty ones, nulls, long ones.
let seed = 1
const random = (below) => (seed = (seed * 48271) % 2147483647) % below
const words = ['alpha', 'beta', 'gamma', 'δέλτα', '早い', '🙂', 'zeta\nline', '"quoted"']
const sentence = (length) => Array.from({ length }, () => words[random(words.length)]).join(' ')
const kinds = {
  few: (i) => words[i % words.length],
  many: (i) => `number ${i}: ${sentence(1 + random(20))}`,
  prefixes: (i) => 'a shared beginning '.repeat(i % 7) + i,
  mixed: (i) => (i % 5 === 0 ? null : i % 11 === 0 ? '' : sentence(random(30))),
  runs: (i) => ((i >> 6) % 2 === 0 ? null : `run ${i >> 8}`),
  nothing: () => null,
  long: (i) => (i % 500 === 3 ? sentence(20000) : String(i)),
}
const rows = 3000
const tables = Object.fromEntries(
  Object.entries(kinds).map(([name, text]) => [name, Array.from({ length: rows }, (_, i) => text(i))]))

const file = (name) => path.join(folder, name)
function expected(name, texts) {
  const lines = texts.filter((text) => text).map((text) => JSON.stringify({ text }) + '\n')
  writeFileSync(file(name + '.jsonl'), lines.join(''))
}

// hyparquet-writer: data pages of version 2.
const compressors = { GZIP: (bytes) => new Uint8Array(gzipSync(bytes)) }
for (const [kind, texts] of Object.entries(tables)) {
  for (const encoding of ['PLAIN', 'DELTA_LENGTH_BYTE_ARRAY', 'DELTA_BYTE_ARRAY', undefined]) {
    for (const codec of ['UNCOMPRESSED', 'SNAPPY', 'GZIP']) {
      const name = `hyparquet-${kind}-${encoding ?? 'dictionary'}-${codec}`
      const present = !texts.includes(null)
      hyparquet.parquetWriteFile({
        filename: file(name + '.parquet'), codec, compressors, rowGroupSize: [7, 1000], pageSize: 20000,
        columnData: [
          { name: 'id', data: texts.map((_, i) => i), type: 'INT32' },
          { name: 'text', data: texts, type: 'STRING', encoding, nullable: !present },
        ],
      })
      expected(name, texts)
    }
  }
}

// DuckDB: data pages of version 1, dictionaries, zstd.
const connection = await (await duckdb.DuckDBInstance.create(':memory:')).connect()
const quote = (text) => `'${text.replaceAll("'", "''")}'`
for (const [kind, texts] of Object.entries(tables)) {
  await connection.run(`create or replace table t (id integer, text varchar, list integer[], title varchar)`)
  const appender = await connection.createAppender('t')
  for (const [i, text] of texts.entries()) {
    appender.appendInteger(i)
    if (text === null) appender.appendNull()
    else appender.appendVarchar(text)
    appender.appendNull()
    appender.appendVarchar('not this')
    appender.endRow()
  }
  appender.closeSync()
  for (const codec of ['uncompressed', 'snappy', 'gzip', 'zstd']) {
    for (const version of ['V1', 'V2']) {
      for (const dictionary of [1000000, 1]) {
        const name = `duckdb-${kind}-${codec}-${version}-${dictionary}`
        await connection.run(`copy (from t order by id) to ${quote(file(name + '.parquet'))} (format parquet,
          codec ${codec}, parquet_version ${version}, row_group_size 2048, dictionary_size_limit ${dictionary})`)
        expected(name, texts)
      }
    }
  }
  await connection.run(`copy (select text from t order by id) to ${quote(file(`duckdb-${kind}-alone.parquet`))}
    (format parquet)`)
  expected(`duckdb-${kind}-alone`, texts)
}
// What must be refused.
await connection.run(`copy (select {'a': 'x'} as text, 'y' as body) to ${quote(file('refused-nested.parquet'))} (format parquet)`)
await connection.run(`copy (select 1 as id, 'a' as title, 'b' as body) to ${quote(file('refused-choice.parquet'))} (format parquet)`)
await connection.run(`copy (select 1 as text) to ${quote(file('refused-number.parquet'))} (format parquet)`)
await connection.run(`copy (select 'a' as text) to ${quote(file('refused-brotli.parquet'))} (format parquet, codec brotli)`)
