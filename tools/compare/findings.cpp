#include "tools/compare/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "models/config.h"
#include "nf/error.h"
#include "tools/tracking/terminal.h"

namespace nf {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kLastShare = 0.05;  // of a run, over which its training loss is averaged
constexpr size_t kAdvantages = 4;    // over so many others, the next best first
constexpr double kSizesDiffer = 1.1;
constexpr double kPracticallyEqual = 0.01;  // nats: about what another seed changes in small runs

// Mean and standard deviation over the runs of a group.
struct Spread {
  double mean = kNone, deviation = kNone;
  size_t count = 0;
};

Spread spread_of(std::span<const double> values) {
  Spread spread;
  double sum = 0, squares = 0;
  for (const double value : values)
    if (std::isfinite(value)) {
      sum += value;
      ++spread.count;
    }
  if (spread.count == 0) return spread;
  const auto count = static_cast<double>(spread.count);
  spread.mean = sum / count;
  for (const double value : values)
    if (std::isfinite(value)) squares += (value - spread.mean) * (value - spread.mean);
  if (spread.count > 1) spread.deviation = std::sqrt(squares / (count - 1));
  return spread;
}

double last_finite(const std::vector<double>& values) {
  for (size_t i = values.size(); i-- > 0;)
    if (std::isfinite(values[i])) return values[i];
  return kNone;
}

double last_training_loss(const RunHistory& history) {
  const std::vector<double> losses = history.training().column("loss");
  const auto take = std::max<size_t>(1, static_cast<size_t>(kLastShare * static_cast<double>(losses.size())));
  return spread_of(std::span(losses).last(std::min(take, losses.size()))).mean;
}

// All runs of one model.
struct Group {
  std::string name;
  std::vector<const PageRun*> runs;  // that have begun, at least one
  const RunFacts* facts = nullptr;
  bool done = true;
  Spread validation, training, speed, seconds, tokens;

  double mean_of(const std::function<double(const RunHistory&)>& measure) const {
    return figures(measure).mean;
  }
  Spread figures(const std::function<double(const RunHistory&)>& measure) const {
    std::vector<double> values;
    for (const PageRun* run : runs) values.push_back(measure(*run->history));
    return spread_of(values);
  }
};

std::vector<Group> groups_of(std::span<const PageRun> runs) {
  std::vector<Group> groups;
  for (const PageRun& run : runs) {
    const std::string& name = run.facts.group.empty() ? run.facts.name : run.facts.group;
    auto at = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.name == name; });
    if (at == groups.end()) {
      groups.emplace_back();
      groups.back().name = name;
      groups.back().facts = &run.facts;
      at = groups.end() - 1;
    }
    at->done = at->done && run.status == RunStatus::done;
    if (run.history && run.history->step() > 0) at->runs.push_back(&run);
  }
  for (Group& g : groups) {
    g.validation =
        g.figures([](const RunHistory& h) { return last_finite(h.validation().column("val_loss")); });
    g.training = g.figures(last_training_loss);
    g.seconds = g.figures([](const RunHistory& h) { return h.seconds(); });
    g.tokens = g.figures([](const RunHistory& h) { return h.tokens(); });
    g.speed =
        g.figures([](const RunHistory& h) { return h.seconds() > 0 ? h.tokens() / h.seconds() : kNone; });
  }
  return groups;
}

// Where the group's validation loss first comes down to `level`, on the axis "tokens" or "seconds".
double reaches(const Group& group, std::string_view axis, double level) {
  return group.mean_of([&](const RunHistory& h) {
    return first_below(h.validation().column(axis), h.validation().column("val_loss"), level);
  });
}

Table::Cell cell(double value, const std::string& text) {
  return std::isfinite(value) ? Table::Cell{text, value} : Table::Cell{"–", kNone};
}

std::string with_deviation(const Spread& spread) {
  return std::isfinite(spread.deviation) ? fmt::format("{:.4f} ±{:.4f}", spread.mean, spread.deviation)
                                         : fmt::format("{:.4f}", spread.mean);
}

// The loss that all have come down to: the highest of the last ones.
double common_level(const std::vector<Group>& groups) {
  double level = kNone;
  size_t count = 0;
  for (const Group& g : groups) {
    if (!std::isfinite(g.validation.mean)) continue;
    ++count;
    if (!(g.validation.mean <= level)) level = g.validation.mean;
  }
  return count > 1 ? level : kNone;
}

Table table_of(const std::vector<Group>& groups) {
  const double level = common_level(groups);
  Table table;
  const bool levels = std::isfinite(level);
  table.columns = {
      {"model"},
      {"val loss", "at the end, on text that was not trained on, in nats per token", Better::low},
      {levels ? fmt::format("tokens to {:.3f}", level) : "tokens",
       levels ? "tokens until the validation loss first came down to where the last model ended"
              : "learned from",
       levels ? Better::low : Better::neither},
      {"train loss", "mean over the last twentieth of the run", Better::low},
      {"tok/s", "tokens trained on per second, validation and saving not counted", Better::high},
      {"time", "spent in training steps"},
      {"parameters", "numbers that are learned"},
      {"FLOPs/token", "arithmetic of training on one token, forward and backward"},
      {"KV/token", "memory that each token of a generated text takes", Better::low},
      {"memory", "of training: weights, gradients, optimizer and activations, as planned", Better::low},
  };
  for (const Group& g : groups) {
    const RunFacts& f = *g.facts;
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    const double tokens = levels ? reaches(g, "tokens", level) : g.tokens.mean;
    table.rows.push_back({g.name,
                          {{g.name + (g.done || g.runs.empty() ? "" : " (not done)")},
                           cell(g.validation.mean, with_deviation(g.validation)),
                           cell(tokens, format_quantity(tokens)),
                           cell(g.training.mean, with_deviation(g.training)),
                           cell(g.speed.mean, format_quantity(g.speed.mean)),
                           cell(g.seconds.mean, format_duration(g.seconds.mean)),
                           cell(real(f.parameters), format_quantity(real(f.parameters))),
                           cell(f.flops_per_token, format_quantity(f.flops_per_token)),
                           cell(real(f.kv_cache_bytes), format_bytes(f.kv_cache_bytes)),
                           cell(real(f.memory_bytes), format_bytes(f.memory_bytes))}});
  }
  return table;
}

std::string times(double factor) { return fmt::format("{:.{}f}×", factor, factor < 9.95 ? 1 : 0); }

// How many fewer tokens, and seconds, the best takes to come where another one ended.
std::string advantage(const Group& best, const Group& other) {
  const double tokens = other.tokens.mean / reaches(best, "tokens", other.validation.mean),
               seconds = other.seconds.mean / reaches(best, "seconds", other.validation.mean);
  if (!std::isfinite(tokens) || tokens < 1.05) return "";
  std::string text =
      fmt::format("{} comes to where {} ends with {} fewer tokens", best.name, other.name, times(tokens));
  if (std::isfinite(seconds))
    text += seconds >= 1.05   ? fmt::format(", and in {} less time", times(seconds))
            : seconds >= 0.95 ? ", in about the same time"
                              : fmt::format(", but in {} the time", times(1 / seconds));
  return text + ".";
}

// What is before the comma of "gqa,lr=0.002".
std::string_view family(const Group& group) {
  return std::string_view(group.name).substr(0, group.name.find(','));
}

// Leaves of each family the first group, unless all groups are one family; returns the sentence that tells.
std::string keep_best_of_families(std::vector<Group>& groups) {
  const size_t before = groups.size();
  std::vector<Group> best;
  for (const Group& g : groups)
    if (std::none_of(best.begin(), best.end(), [&](const Group& b) { return family(b) == family(g); }))
      best.push_back(g);
  if (best.size() < 2 || best.size() == before) return "";
  groups = std::move(best);
  std::string line = fmt::format("Each model is taken at its best of the {} settings tried: ", before);
  for (const Group& g : groups) line += (&g == &groups.front() ? "" : "; ") + g.name;
  return line + ".";
}

std::vector<std::string> findings_of(std::vector<Group> groups) {
  std::erase_if(groups, [](const Group& g) { return !g.done || !std::isfinite(g.validation.mean); });
  if (groups.size() < 2) return {};
  std::sort(groups.begin(), groups.end(),
            [](const Group& a, const Group& b) { return a.validation.mean < b.validation.mean; });
  const std::string families = keep_best_of_families(groups);
  const Group &best = groups[0], &second = groups[1];
  const double lead = second.validation.mean - best.validation.mean;
  const double noise = std::isfinite(best.validation.deviation)
                           ? std::max(best.validation.deviation, second.validation.deviation)
                           : kPracticallyEqual;
  std::vector<std::string> lines;
  if (lead > noise)
    lines.push_back(fmt::format("{} learns best: validation loss {:.4f}, {:.4f} below {}.", best.name,
                                best.validation.mean, lead, second.name));
  else
    lines.push_back(
        fmt::format("{} and {} learn equally well: validation loss {:.4f} and {:.4f}, which another "
                    "seed may reverse.",
                    best.name, second.name, best.validation.mean, second.validation.mean));
  if (!families.empty()) lines.push_back(families);
  for (size_t i = 1; i < std::min(groups.size(), kAdvantages + 1); ++i)
    if (std::string line = advantage(best, groups[i]); !line.empty()) lines.push_back(std::move(line));

  const auto by = [&](auto measure) {
    const auto less = [&](const Group& a, const Group& b) { return measure(a) < measure(b); };
    return std::minmax_element(groups.begin(), groups.end(), less);
  };
  if (const auto [slow, fast] = by([](const Group& g) { return g.speed.mean; });
      fast->speed.mean > 1.05 * slow->speed.mean)
    lines.push_back(fmt::format("{} is the fastest with {} tokens per second, {} the slowest with {}.",
                                fast->name, format_quantity(fast->speed.mean), slow->name,
                                format_quantity(slow->speed.mean)));
  if (const auto [small, large] = by([](const Group& g) { return g.facts->kv_cache_bytes; });
      small->facts->kv_cache_bytes < large->facts->kv_cache_bytes && small->facts->kv_cache_bytes > 0)
    lines.push_back(fmt::format(
        "{} needs the smallest KV cache: {} per token of a generated text, against {} for {}.", small->name,
        format_bytes(small->facts->kv_cache_bytes), format_bytes(large->facts->kv_cache_bytes), large->name));
  return lines;
}

}  // namespace

double first_below(std::span<const double> x, std::span<const double> y, double level) {
  double before_x = kNone, before_y = kNone;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (!std::isfinite(y[i])) continue;
    if (y[i] <= level)
      return std::isfinite(before_y) ? before_x + (x[i] - before_x) * (before_y - level) / (before_y - y[i])
                                     : x[i];
    before_x = x[i];
    before_y = y[i];
  }
  return kNone;
}

Comparison compare(std::span<const PageRun> runs) {
  const std::vector<Group> groups = groups_of(runs);
  return {.table = table_of(groups), .findings = findings_of(groups)};
}

std::string size_warning(std::span<const PageRun> runs) {
  if (runs.empty()) return "";
  const auto [small, large] = std::minmax_element(
      runs.begin(), runs.end(),
      [](const PageRun& a, const PageRun& b) { return a.facts.parameters < b.facts.parameters; });
  const auto few = static_cast<double>(small->facts.parameters),
             many = static_cast<double>(large->facts.parameters);
  if (many < kSizesDiffer * few) return "";
  const ModelConfig model = parse_config(small->facts.config_json, small->facts.name).model;
  // A gated MLP has three matrices of this width.
  const double per_width = 3 * static_cast<double>(model.hidden_size * model.num_hidden_layers);
  const auto wider = static_cast<int64_t>(std::llround(
                         (static_cast<double>(model.intermediate_size) + (many - few) / per_width) / 8)) *
                     8;
  return fmt::format(
      "the sizes differ: {} has {} parameters, {} has {}; -m {},intermediate_size={} would make them equal",
      large->facts.name, format_quantity(many), small->facts.name, format_quantity(few),
      small->facts.group.empty() ? small->facts.name : small->facts.group, wider);
}

}  // namespace nf
