#include "tools/trainer/training_data.h"

#include <algorithm>
#include <cmath>

#include "nf/error.h"
#include "tools/data_flags.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

BatchOptions batch_options(const TrainSettings& settings) {
  return {.mode = settings.batch_mode,
          .batch = settings.batch_size,
          .length = settings.seq_len,
          .seed = static_cast<uint64_t>(settings.seed)};
}

// The characters of a text, each once.
struct Alphabet {
  std::string text;
  std::vector<bool> seen;  // by code point

  void insert(std::string_view piece) {
    while (!piece.empty()) {
      const Utf8Character character = first_character(piece);
      if (character.code_point >= seen.size()) seen.resize(character.code_point + 1);
      if (!seen[character.code_point]) text += piece.substr(0, character.length);
      seen[character.code_point] = true;
      piece.remove_prefix(character.length);
    }
  }
};

std::shared_ptr<const Tokenizer> tokenizer_for(const TrainSettings& settings, const DocumentSource& source) {
  return make_tokenizer(settings.tokenizer, [&](const std::function<void(std::string_view)>& add) {
    Alphabet long_document;  // of which the tokenizer must not see every piece as a document
    source.visit([&](const Document& document) {
      if (!document.more && long_document.text.empty()) return add(document.text);
      long_document.insert(document.text);
      if (document.more) return;
      add(long_document.text);
      long_document = {};
    });
  });
}

}  // namespace

TrainingData load_training_data(const TrainSettings& settings, std::shared_ptr<const Tokenizer> tokenizer) {
  const Texts texts{
      settings.data,
      {.hub = {.subset = settings.subset, .split = settings.split}, .text_field = settings.text_field}};
  const auto source = texts.open();
  TrainingData data;
  data.tokenizer = tokenizer ? std::move(tokenizer) : tokenizer_for(settings, *source);
  const TokenDataset all = tokenize(*source, *data.tokenizer, {.threads = settings.threads});
  DatasetSplit split = all.split(settings.val_fraction, static_cast<uint64_t>(settings.split_seed));
  data.train = std::move(split.train);
  data.validation = std::move(split.validation);
  data.stats = data.train.stats();
  data.documents = settings.batch_mode == BatchMode::pad || all.documents() > 1;
  return data;
}

ModelConfig with_vocabulary(ModelConfig config, const Tokenizer& tokenizer) {
  require(config.vocab_size == 0 || config.vocab_size >= tokenizer.vocab_size(),
          "config: vocab_size is {}, the {} tokenizer has {} tokens; leave vocab_size out or make it larger",
          config.vocab_size, tokenizer.name(), tokenizer.vocab_size());
  if (config.vocab_size == 0) config.vocab_size = tokenizer.vocab_size();
  return config;
}

std::unique_ptr<Batches> training_batches(const TrainingData& data, const TrainSettings& settings) {
  return prefetched(make_batches(data.train, batch_options(settings)));
}

std::unique_ptr<Batches> validation_batches(const TrainingData& data, const TrainSettings& settings) {
  BatchOptions options = batch_options(settings);
  options.shuffle = false;
  return prefetched(make_batches(data.validation, options));
}

int64_t total_steps(const TrainSettings& settings, const Batches& batches) {
  if (settings.steps > 0) return settings.steps;
  const double steps = settings.epochs * static_cast<double>(batches.batches_per_epoch()) /
                       static_cast<double>(settings.grad_accum);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps)));
}

}  // namespace nf
