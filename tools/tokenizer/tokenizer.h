// Text to token ids and back: the interface every tokenizer fulfils, and how one is made, saved and loaded.
//
//     auto tokenizer = make_tokenizer("byte");
//     std::vector<int32_t> ids;
//     tokenizer->encode("hello", ids);
//     tokenizer->save("run/");                       // run/tokenizer.json
//     auto same = load_tokenizer("run/");            // same->fingerprint() == tokenizer->fingerprint()
//
// A tokenizer is immutable: every method is const and may be called from several threads at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // "byte", "char", "bpe": the kind.
  virtual std::string_view name() const = 0;

  // Ids are 0 … vocab_size() - 1, the special ones included.
  virtual int32_t vocab_size() const = 0;

  // Appends the ids of `text`. Text is only text: the spelling of a special token ("<|endoftext|>") inside it
  // does not become that token. Throws Error when the text cannot be represented, naming the place.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) const = 0;

  // The same, but where the text spells a special token, it is that token: for texts one trusts, as the
  // templates of chats.
  virtual void encode_special(std::string_view text, std::vector<int32_t>& ids) const { encode(text, ids); }

  // The bytes of the ids, which for a cut sequence may be no whole UTF-8 (see Utf8Stream). Special tokens
  // have no bytes. Throws Error for an id outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  // The bytes of one token amid a text. decode() gives these one after another, but for what some tokenizers
  // drop at the ends of a text (the blank that they put before the first word).
  virtual std::string piece(int32_t id) const { return decode(std::span(&id, 1)); }

  // Special tokens, where the vocabulary has them: what begins a document, ends it, fills a row.
  virtual std::optional<int32_t> bos_id() const { return std::nullopt; }
  virtual std::optional<int32_t> eos_id() const { return std::nullopt; }
  virtual std::optional<int32_t> pad_id() const { return std::nullopt; }

  // The JSON text that save() writes: everything the tokenizer is.
  virtual std::string to_json() const = 0;

  // A hash of to_json(): equal for tokenizers that map text alike, and the same on every machine. For caches
  // and for checking that a resumed run still uses the tokenizer it began with.
  uint64_t fingerprint() const;

  // Writes `directory`/tokenizer.json (beside, then renamed), creating the folder. Throws Error when it
  // cannot.
  void save(const std::filesystem::path& directory) const;
};

// Calls its argument once for each document of the training text.
using TrainingText = std::function<void(const std::function<void(std::string_view)>& add)>;

// Makes a tokenizer from what a user writes:
//   "byte"   ByteTokenizer
//   "char"   CharTokenizer of the characters in `training_text`, which is visited once; it has an
//            end-of-text token exactly when there are several documents to keep apart
//   a path   load_tokenizer() of that folder or file
// Throws Error that lists the kinds for anything else.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec, const TrainingText& training_text = {});

// Loads `path`, a tokenizer.json or the folder that holds one: what save() wrote, or Hugging Face's
// (byte-pair encoding; see hugging_face.h). Throws Error that names the file and what is wrong or not
// supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

}  // namespace nf
