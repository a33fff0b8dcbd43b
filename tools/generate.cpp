#include "tools/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "models/training_step.h"
#include "tools/data/shuffle.h"

namespace nf {

void check(const SamplingOptions& options) {
  require(options.temperature >= 0, "temperature {} is negative", options.temperature);
  require(options.top_k >= 0, "top-k {} is negative", options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, "top-p {} is not in (0, 1]", options.top_p);
  require(options.min_p >= 0 && options.min_p <= 1, "min-p {} is not in [0, 1]", options.min_p);
  require(options.repetition_penalty > 0, "repetition penalty {} is not positive",
          options.repetition_penalty);
}

namespace {

// A token this much less likely than the likeliest, in nats, is never drawn: all of them together are below
// what the random number resolves.
constexpr double kNegligible = 60;

struct Candidate {
  int32_t token;
  double logit;
};

void penalize(std::vector<Candidate>& candidates, std::span<const int32_t> seen, double penalty) {
  if (penalty == 1) return;
  std::vector<bool> done(candidates.size(), false);
  for (int32_t token : seen) {
    const auto at = static_cast<size_t>(token);
    if (done[at]) continue;
    done[at] = true;
    double& logit = candidates[at].logit;
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// How many of the sorted candidates with these cumulated probabilities stay.
size_t nucleus(const std::vector<double>& weights, const SamplingOptions& options) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i > 0 && weights[i] < options.min_p * weights[0]) return i;
    sum += weights[i];
    if (sum >= options.top_p * total) return i + 1;
  }
  return weights.size();
}

}  // namespace

int32_t sample(std::span<const float> logits, std::span<const int32_t> seen, const SamplingOptions& options,
               int64_t position) {
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i)
    candidates.push_back({static_cast<int32_t>(i), static_cast<double>(logits[i])});
  penalize(candidates, seen, options.repetition_penalty);
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  };
  if (options.temperature == 0)
    return std::min_element(candidates.begin(), candidates.end(), likelier)->token;
  const double least = std::min_element(candidates.begin(), candidates.end(), likelier)->logit -
                       kNegligible * options.temperature;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.logit < least; });
  std::sort(candidates.begin(), candidates.end(), likelier);
  if (options.top_k > 0) candidates.resize(std::min(candidates.size(), static_cast<size_t>(options.top_k)));
  std::vector<double> weights;
  for (const Candidate& candidate : candidates)
    weights.push_back(std::exp((candidate.logit - candidates[0].logit) / options.temperature));
  weights.resize(nucleus(weights, options));
  const double uniform =
      static_cast<double>(random_bits(options.seed, 0, static_cast<uint64_t>(position)) >> 11) * 0x1p-53;
  double left = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return candidates[i].token;
  }
  return candidates[weights.size() - 1].token;
}

Generator::Generator(LoadedModel& model, DType compute, int64_t capacity)
    : model_(model),
      compute_(compute),
      capacity_(capacity),
      logits_(static_cast<size_t>(model.config.vocab_size)) {
  require(capacity > 0 && capacity <= model.config.max_position_embeddings,
          "generation: {} tokens, but max_position_embeddings is {}", capacity,
          model.config.max_position_embeddings);
}

std::unique_ptr<Executable> Generator::compile_for(int64_t tokens) {
  return compile(*logits_step(model_.config,
                              {.batch = 1, .length = tokens, .compute = compute_, .cache_length = capacity_}),
                 model_.state, {.frozen = tokens == 1, .name = tokens == 1 ? "decode" : "prefill"});
}

std::span<const float> Generator::append(std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  require(count > 0 && position_ + count <= capacity_, "generation: {} tokens after {} do not fit in {}",
          count, position_, capacity_);
  std::unique_ptr<Executable> prefill;
  if (count > 1) prefill = compile_for(count);
  if (count == 1 && !one_token_) one_token_ = compile_for(1);
  Executable& step = count > 1 ? *prefill : *one_token_;
  position_ += count;
  const auto length = static_cast<int32_t>(position_);
  step.set<int32_t>("ids", tokens);
  step.set<int32_t>("length", std::span(&length, 1));
  step.run();
  step.get_bytes("logits", std::as_writable_bytes(std::span(logits_)));
  return logits_;
}

std::string StoppableText::release() {
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  stopped_ = end != std::string::npos;
  if (!stopped_) {
    // The longest end of the text that begins a stop string stays here.
    end = held_.size();
    for (const std::string& stop : stops_) {
      for (size_t length = std::min(stop.size() - 1, held_.size()); length > held_.size() - end; --length)
        if (held_.ends_with(std::string_view(stop).substr(0, length))) end = held_.size() - length;
    }
  }
  std::string out = held_.substr(0, end);
  held_.erase(0, end);
  return out;
}

std::string StoppableText::add(std::string_view bytes) {
  if (stopped_) return {};
  held_ += characters_.feed(bytes);
  return release();
}

std::string StoppableText::finish() {
  if (stopped_) return {};
  held_ += characters_.finish();
  std::string out = release();
  if (!stopped_) out += held_;
  held_.clear();
  return out;
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, std::string_view prompt, bool special) {
  std::vector<int32_t> ids;
  if (const auto bos = tokenizer.bos_id()) ids.push_back(*bos);
  if (special)
    tokenizer.encode_special(prompt, ids);
  else
    tokenizer.encode(prompt, ids);
  if (ids.empty() && tokenizer.eos_id())
    ids.push_back(*tokenizer.eos_id());  // a document begins where another ended
  require(!ids.empty(), "the prompt is empty, and the tokenizer has no token to begin with: give --prompt");
  return ids;
}

Continuation continue_text(Generator& generator, const Tokenizer& tokenizer, std::vector<int32_t> ids,
                           const ContinueOptions& options,
                           const std::function<void(std::string_view)>& show) {
  const auto prompt_length = static_cast<int64_t>(ids.size());
  const int64_t capacity = std::min(prompt_length + options.max_tokens, generator.capacity());
  require(prompt_length < capacity,
          "the prompt has {} tokens, the model's context {}: there is no room to go on", prompt_length,
          generator.capacity());
  Continuation result;
  result.finish_reason = capacity < prompt_length + options.max_tokens ? "context" : "length";
  StoppableText text(options.stops);
  const auto say = [&](const std::string& more) {
    result.text += more;
    if (show && !more.empty()) show(more);
  };

  generator.restart();
  std::span<const float> logits = generator.append(ids);
  const auto start = std::chrono::steady_clock::now();
  const auto known = static_cast<size_t>(tokenizer.vocab_size());  // the model's vocabulary may be rounded up
  while (static_cast<int64_t>(ids.size()) < capacity) {
    const int32_t token =
        sample(logits.first(known), ids, options.sampling, static_cast<int64_t>(ids.size()));
    ids.push_back(token);
    if (tokenizer.eos_id() == token) {
      result.finish_reason = "end";
      break;
    }
    say(text.add(tokenizer.piece(token)));
    if (text.stopped()) {
      result.finish_reason = "stop";
      break;
    }
    if (static_cast<int64_t>(ids.size()) < capacity) logits = generator.append(std::span(&token, 1));
  }
  say(text.finish());
  result.tokens = static_cast<int64_t>(ids.size()) - prompt_length;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace nf
