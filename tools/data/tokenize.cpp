// tokenize(): the cache of tokens between a source and a dataset.
#include <nf/error.h>
#include <unistd.h>

#include "tools/data/cache.h"
#include "tools/data/dataset.h"
#include "tools/data/encode.h"
#include "tools/data/shuffle.h"
#include "tools/data/slow_progress.h"
#include "tools/tracking/terminal.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// To be raised when the same text may give other tokens than before.
constexpr uint64_t kTokenVersion = 2;

DocumentFrame frame_for(const Tokenizer& tokenizer, const TokenizeOptions& options) {
  const auto bos = tokenizer.bos_id(), eos = tokenizer.eos_id();
  require(bos || !options.bos.value_or(false), "data: the {} tokenizer has no token to begin a document with",
          tokenizer.name());
  require(eos || !options.eos.value_or(false), "data: the {} tokenizer has no token to end a document with",
          tokenizer.name());
  return {.bos = options.bos.value_or(true) ? bos.value_or(-1) : -1,
          .eos = options.eos.value_or(true) ? eos.value_or(-1) : -1,
          .bos_always = options.bos.value_or(false),
          .eos_always = options.eos.value_or(false)};
}

uint64_t key_of(const DocumentSource& source, const Tokenizer& tokenizer, const DocumentFrame& frame) {
  uint64_t key = kTokenVersion;
  for (const uint64_t part :
       {source.fingerprint(), tokenizer.fingerprint(), static_cast<uint64_t>(tokenizer.vocab_size()),
        static_cast<uint64_t>(frame.bos), static_cast<uint64_t>(frame.eos),
        static_cast<uint64_t>(frame.bos_always), static_cast<uint64_t>(frame.eos_always)})
    key = mix_bits(mix_bits(key) ^ part);
  return key;
}

// nullptr: there is none, or none that can be trusted.
std::shared_ptr<const TokenFile> open_cached(const fs::path& path, uint64_t key) {
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return nullptr;
  SlowProgress progress("checking the cached tokens, MB", size);
  try {
    return TokenFile::open(path, key, [&](int64_t done, int64_t) { progress.update(done); });
  } catch (const Error&) {
    return nullptr;
  }
}

void write_tokens(const DocumentSource& source, const Tokenizer& tokenizer, int threads,
                  TokenFileWriter& writer) {
  SlowProgress progress("tokenising, MB");
  int64_t bytes = 0;
  encode_documents(source, tokenizer, {.threads = threads},
                   [&](const Document& document, std::span<const int32_t> ids) {
                     writer.add(ids, document.more);
                     bytes += static_cast<int64_t>(document.text.size());
                     progress.update(bytes);
                   });
}

}  // namespace

TokenDataset tokenize(const DocumentSource& source, const Tokenizer& tokenizer,
                      const TokenizeOptions& options) {
  const DocumentFrame frame = frame_for(tokenizer, options);
  const auto folder = cache_folder();
  require(folder.has_value(), "cache: no folder for tokens: set NF_CACHE or HOME");
  const uint64_t key = key_of(source, tokenizer, frame);
  const fs::path path = *folder / "tokens" / fmt::format("{:016x}.tokens", key);
  if (auto file = open_cached(path, key)) return TokenDataset(std::move(file));

  const int64_t limit = cache_limit(*folder);  // before the work: an error in it is told at once
  std::shared_ptr<const TokenFile> file;
  make_once(
      path, [&] { return (file = open_cached(path, key)) != nullptr; },
      [&] { fmt::print(stderr, "another process is tokenising the same text; waiting for it\n"); },
      [&](const fs::path& partial) {
        TokenFileWriter writer(partial, key, tokenizer.vocab_size(), frame);
        write_tokens(source, tokenizer, options.threads, writer);
        require(writer.documents() > 0, "data: there is no text in {}", source.description());
        writer.finish();
      });
  if (!file) file = TokenFile::open(path, key);
  // Not this one: it is in use.
  const Pruned pruned = prune(path.parent_path(), ".tokens", limit);
  if (pruned.files > 0)
    fmt::print(
        stderr,
        "cache: removed the tokens of {} text{}, {}, not used for longest; NF_CACHE_GB sets its size\n",
        pruned.files, pruned.files == 1 ? "" : "s", format_bytes(pruned.bytes));
  return TokenDataset(std::move(file));
}

}  // namespace nf
