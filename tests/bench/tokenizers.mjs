// node tokenizers.mjs PEERS NF_TOKENIZE THREADS TEXTS.jsonl TOKENIZER.json…: the encoding speed of nf-tokenize beside that
// of Hugging Face's tokenizers (Rust), in turns, five rounds, medians. Of their time, what JavaScript adds is left out (the
// conversion of strings and ids); in ours, reading the file and counting are included.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const rounds = 5;
const [peers, program, threads, data, ...files] = process.argv.slice(2);

// One measurement of theirs, in a process of its own: MB/s.
async function theirs(file) {
  const { Tokenizer } = createRequire(join(peers, 'node_modules', 'package.json'))('tokenizers');
  const tokenizer = Tokenizer.fromFile(file);
  const documents = readFileSync(data, 'utf8').trim().split('\n').map((line) => JSON.parse(line).text);
  let seconds = 0, bytes = 0;
  for (let i = 0; i < documents.length;) {
    const batch = [];
    for (let size = 0; i < documents.length && size < 8e6; size += documents[i++].length) batch.push(documents[i]);
    const encoded = tokenizer.encodeBatch(batch, { addSpecialTokens: false });
    const start = performance.now();  // the strings are converted by now
    await encoded;
    seconds += (performance.now() - start) / 1000;
    for (const text of batch) bytes += Buffer.byteLength(text);
  }
  return bytes / 1e6 / seconds;
}

if (process.env.NF_TIME_THEIRS) {
  console.log(await theirs(process.env.NF_TIME_THEIRS));
  process.exit(0);
}
const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)];
for (const file of files) {
  const speeds = { ours: [], theirs: [] };
  const environment = { ...process.env, NF_TIME_THEIRS: file, RAYON_NUM_THREADS: threads,
                        TOKENIZERS_PARALLELISM: threads === '1' ? 'false' : 'true' };
  for (let round = 0; round < rounds; ++round) {
    const line = execFileSync(program, ['stats', '-t', file, '--threads', threads, '--json', '--data', data]).toString();
    speeds.ours.push(JSON.parse(line).megabytes_per_second);
    const answer = execFileSync(process.execPath, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { env: environment });
    speeds.theirs.push(Number(answer.toString()));
  }
  const [ours, theirs] = [median(speeds.ours), median(speeds.theirs)];
  const name = file.replace(/.*tokenizer-([^/]*).*/, '$1');
  console.log(`${name}, ${threads} thread(s): ours ${ours.toFixed(1)}, theirs ${theirs.toFixed(2)} MB/s, ratio ${(ours / theirs).toFixed(1)}`);
}
