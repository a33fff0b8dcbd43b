// node tokenizer_cases.mjs PEERS FILE: writes tests/golden/tokenizer_cases.json, small tokenizers that each use a part of
// tokenizer.json, with the ids and decoded texts that Hugging Face's tokenizers give.
import { createRequire } from 'node:module';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [peers, out] = process.argv.slice(2);
const { Tokenizer } = createRequire(join(peers, 'node_modules', 'package.json'))('tokenizers');

// GPT-2's letters for bytes.
const letters = [];
for (let byte = 0, next = 256; byte < 256; ++byte)
  letters.push(String.fromCodePoint((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174 ? byte : next++));
const spelled = (text) => [...Buffer.from(text)].map((byte) => letters[byte]);

// A vocabulary of symbols, and merges that build each word from its left end.
function model(symbols, words, more = {}, pairs = true) {
  const vocab = {};
  const add = (token) => (vocab[token] ??= Object.keys(vocab).length);
  symbols.forEach(add);
  const merges = new Map();
  for (const word of words) {
    for (let i = 1; i < word.length; ++i) {
      const [left, right] = [word.slice(0, i).join(''), word[i]];
      add(left + right);
      merges.set(`${left} ${right}`, [left, right]);
    }
  }
  return {
    type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false,
    byte_fallback: false, ignore_merges: false, vocab, merges: pairs ? [...merges.values()] : [...merges.keys()], ...more };
}
const words = [' the', 'the', ' in', 'ing', ' a', '123', '12', 'and', '  ', '\n\n', 'é', 'ab', 'bc', 'abc'];
const bytes = (more, pairs) => model(letters, words.map(spelled), more, pairs);
const byteLevel = (more = {}) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true, ...more });
const split = (pattern, behavior, invert = false) => ({ type: 'Split', pattern, behavior, invert });
const sequence = (...pretokenizers) => ({ type: 'Sequence', pretokenizers });
const token = (id, content, more = {}) =>
  ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...more });
const size = Object.keys(bytes().vocab).length;
const file = (name, parts, texts) => ({ name, texts, file: {
  version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: byteLevel(),
  post_processor: null, decoder: byteLevel(), model: bytes(), ...parts } });
const plain = ["the thing in the end", "  and 12 123 1234\n\n\nabc  x", "it's The'S café naïve 你好 😀\t!", "", " ", "a  ", "\n a"];

const chars = [...'▁abcdefghinot,.', '<unk>', ...Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`)];
const llama = (more) => model(chars, ['▁the', '▁a', 'the', '▁▁', '▁▁▁▁', 'an', '▁an'].map((w) => [...w]), { unk_token: '<unk>', ...more });
const llamaDecoder = { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' },
  { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] };
const llamaNormalizer = { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' },
  { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] };
const llamaTexts = ['the an', ' the  an    a', 'théa\n', '', 'a<s>the', '<s> an</s> a', '▁a ▁', 'zzz the 好'];
const llamaTokens = [token(0, '▁', { special: false }), token(400, '<s>'), token(401, '</s>')].slice(1);
for (const [i, t] of llamaTokens.entries()) t.id = Object.keys(llama().vocab).length + i;

const marked = ['x<m>y', 'x  <m>  y', '<m><m>', 'a<m>b <m> c', 'the <m>', '<m>the', 'É<m>', '<s><m><e>', ' <s> in'];
const marks = (more) => [token(size, '<s>'), token(size + 1, '<m>', more), token(size + 2, '<e>')];
const behaviors = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'];
const dashes = ['a--b-c', '--', '-the-in--', 'the', ' - - '];

const files = [
  file('gpt2', {}, plain),
  file('gpt2 with merges as texts', { model: bytes({}, false) }, plain),
  file('prefix space', { pre_tokenizer: byteLevel({ add_prefix_space: true }) }, plain),
  file('no regex', { pre_tokenizer: byteLevel({ use_regex: false }) }, plain),
  file('ignore_merges', { model: bytes({ ignore_merges: true, merges: [] }) }, plain),
  file('digits', { pre_tokenizer: sequence({ type: 'Digits', individual_digits: true }, byteLevel()) }, plain),
  file('runs of digits', { pre_tokenizer: sequence({ type: 'Digits', individual_digits: false }, byteLevel()) }, ['a12½b3', ...plain]),
  ...['NFC', 'NFD', 'NFKC', 'NFKD'].map((type) => file(type, { normalizer: { type } },
    ['e\u0301 é', '\u212b ﬁ ²', '\u1100\u1161\u11a8 각', 'a\u0323\u0307', 'が か\u3099', ...plain])),
  file('replace', { normalizer: { type: 'Sequence', normalizers: [{ type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
    { type: 'Replace', pattern: { String: 'the' }, content: 'in' }] } }, plain),
  ...behaviors.flatMap((behavior) => [false, true].map((invert) =>
    file(`${behavior}${invert ? ', inverted' : ''}`,
      { pre_tokenizer: sequence(split({ String: '-' }, behavior, invert), byteLevel({ use_regex: false })) }, dashes))),
  file('regex', { pre_tokenizer: sequence(split({ Regex: '\\w+|[^\\w\\s]+' }, 'Isolated'), byteLevel({ use_regex: false })) },
    ['a_b\u0301 ٣x-y', 'x\u180ey\u00a0z\u0085', ...plain]),
  file('added', { added_tokens: marks() }, marked),
  file('added, lstrip', { added_tokens: marks({ lstrip: true }) }, marked),
  file('added, rstrip', { added_tokens: marks({ rstrip: true }) }, marked),
  file('added, single word', { added_tokens: marks({ single_word: true }) }, marked),
  file('added, no special', { added_tokens: marks({ special: false, lstrip: true, rstrip: true }) }, marked),
  file('added, normalized', { normalizer: { type: 'NFKC' }, added_tokens: [token(size, 'ﬁx', { normalized: true, special: false })] },
    ['a fix', 'ﬁx', 'a\uff46ix the']),
  file('added, longest', { added_tokens: [token(size, '<a>'), token(size + 1, '<a><a>', { special: false }), token(size + 2, 'a><')] },
    ['<a><a><a>', 'x<a', 'a><a>']),
  file('llama2', { normalizer: llamaNormalizer, pre_tokenizer: null, decoder: llamaDecoder, added_tokens: llamaTokens,
    model: llama({ byte_fallback: true, fuse_unk: true }) }, llamaTexts),
  file('unknown', { normalizer: llamaNormalizer, pre_tokenizer: null, decoder: llamaDecoder, model: llama() }, llamaTexts),
  file('unknown, fused', { normalizer: llamaNormalizer, pre_tokenizer: null, decoder: llamaDecoder, model: llama({ fuse_unk: true }) }, llamaTexts),
  ...['always', 'first', 'never'].flatMap((prepend_scheme) => [false, true].map((split) => {
    const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme, split };
    return file(`metaspace ${prepend_scheme}${split ? ', split' : ''}`, { pre_tokenizer: metaspace, decoder: metaspace,
      added_tokens: llamaTokens, model: llama({ byte_fallback: false }) }, llamaTexts);
  })),
];

for (const entry of files) {
  const tokenizer = Tokenizer.fromString(JSON.stringify(entry.file));
  entry.cases = [];
  for (const text of entry.texts) {
    const ids = (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();
    entry.cases.push({ text, ids, decoded: await tokenizer.decode(ids, true) });
  }
  delete entry.texts;
}
// The vocabularies are few: kept once.
const vocabularies = [];
for (const entry of files) {
  const text = JSON.stringify(entry.file.model.vocab);
  if (!vocabularies.includes(text)) vocabularies.push(text);
  entry.file.model.vocab = vocabularies.indexOf(text);
}
const lines = (list) => '[\n' + list.join(',\n') + '\n]';
writeFileSync(out, `{"vocabularies": ${lines(vocabularies)},\n"files": ${lines(files.map((f) => JSON.stringify(f)))}}\n`);
