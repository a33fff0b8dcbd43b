// Texts that try a tokenizer, the same every time: prose, code, other scripts, emoji, marks that combine, runs of blanks,
// contractions, numbers, special tokens spelled out, and random characters of all of Unicode.

export function generator(seed) {
  let state = seed >>> 0;
  return (below) => {
    // Marsaglia's xorshift
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const words = `the of and to in a is that it's for on with don't as at by this WE'LL from they'd or one had BY
  word But not what all were I'm can't said there use an each which she do how their if will up other about out many
  Donaudampfschifffahrt naïve café Straße ſ'ſ 'ſ 12 123 1234 12345 3.14159 1,000,000 0x1F ٣٤٥ ⅷ ½ x² e.g. http://a.b/c?d=e&f#g
  user@example.com snake_case camelCase SCREAMING_CASE <br/> &nbsp; "quoted" (paren) [bracket] {brace} -- --- ... … — – “ ” ‘ ’`
  .split(/\s+/);
const scripts = ['привет мир', 'γειά σου Κόσμε', 'שלום עולם', 'مرحبا بالعالم', 'नमस्ते दुनिया', '你好世界，我们今天学习。', '日本語のテキストです。カタカナ',
  '한국어 텍스트', 'สวัสดีชาวโลก', 'Tiếng Việt', 'ქართული', 'አማርኛ', '𝔘𝔫𝔦𝔠𝔬𝔡𝔢', 'ﬁligature', 'ｆｕｌｌｗｉｄｔｈ'];
const symbols = ['😀', '👨‍👩‍👧‍👦', '🇩🇪', '👍🏽', '❤️', '✨', '€', '→', '∑', '█', '\u200b', '\u00a0', '\u3000', '\u2028', '\u0085', '\u180e',
  '\u0000', '\ufeff', '\ufffd', '\u{10ffff}', 'e\u0301', 'a\u0308\u0323', '\u1100\u1161\u11a8', '\u212b', '\u0344', 'か\u3099'];
const code = ['for (int i = 0; i < n; ++i) {\n    sum += a[i];\n}\n', 'def f(x):\n\treturn x**2  # comment\n',
  '{"key": [1, 2.5e-3, null], "b": "\\u00e9"}\r\n', 'SELECT * FROM t WHERE a != \'b\';\n', '\\begin{equation} x_1^2 \\end{equation}\n',
  '<div class="a">text</div>\n', '#include <vector>\n\n\ntemplate <class T> struct S;\n', '    \t  \n', '\n\n\n', '\r\n\r\n'];
const special = ['<|endoftext|>', '<|im_start|>', '<s>', '</s>', '<|begin_of_text|>', '<think>', '<unk>', '<｜end▁of▁sentence｜>', '▁', '<0x0A>'];

export function text(random, length, withSpecial) {
  let out = '';
  while (out.length < length) {
    const pick = (list) => list[random(list.length)];
    const kind = random(100);
    if (kind < 60) out += (random(8) ? ' ' : '') + pick(words);
    else if (kind < 68) out += pick(scripts) + (random(2) ? ' ' : '');
    else if (kind < 75) out += pick(code);
    else if (kind < 82) out += pick(symbols);
    else if (kind < 86) out += ' '.repeat(random(4) ? 1 + random(8) : random(300));
    else if (kind < 90) out += pick(['.', ',', '!', '?', ';', '\n', '\t', '\r\n', ' \n ', "'", '"', '-']).repeat(1 + random(4));
    else if (kind < 94) out += String.fromCodePoint(32 + random(0xd7e0));
    else if (kind < 95) out += String.fromCodePoint(0x10000 + random(0x20000));
    else if (kind < 96) out += pick(['a', 'A', '=', '好', '😀', 'ab', '0']).repeat(random(80));
    else if (withSpecial && kind < 98) out += pick(special);
    else out += String(random(1e9));
  }
  return out.toWellFormed();
}
