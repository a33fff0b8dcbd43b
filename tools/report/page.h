// report.html: a run, or several side by side, as one page that needs nothing but a browser: no network, no
// server, no other file. The page itself is page.html; the build embeds it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tools/report/history.h"

namespace nf {

// What is known of a run before its first step.
struct RunFacts {
  std::string name = {};
  std::string group = {};  // runs of one group differ in the seed only; shown in one colour. Empty: the name
  std::string architecture = {};  // "gqa"
  int64_t parameters = 0;
  double flops_per_token = 0;    // of training: forward and backward
  int64_t kv_cache_bytes = 0;    // per token while generating
  int64_t memory_bytes = 0;      // tensors and arena, as planned
  int64_t steps = 0;             // in all
  std::string config_json = {};  // the run's config.json
};

enum class RunStatus : uint8_t { waiting, running, stopped, done, failed };
std::string_view name(RunStatus status);

struct PageRun {
  RunFacts facts;
  RunStatus status = RunStatus::waiting;
  const RunHistory* history = nullptr;  // none: nothing measured yet
};

struct Page {
  std::string title;
  std::string subtitle = {};
  std::vector<std::string> findings = {};  // sentences at the top
  std::string table_json = {};             // see tools/compare.h; empty: no table
  std::vector<PageRun> runs = {};
};

std::string render(const Page& page);

// Writes the page now and then: as often as a reader wants, as long as it takes less than a hundredth of the
// time that passes.
class PageWriter {
 public:
  explicit PageWriter(std::filesystem::path file);

  // Whether it may be written (again); `worthwhile`: there is news, do not wait for the usual interval.
  bool due(bool worthwhile) const;
  // Replaces the file as a whole. Throws Error when it cannot.
  void write(const Page& page);

  const std::filesystem::path& file() const { return file_; }

 private:
  std::filesystem::path file_;
  double last_written_, cost_;  // seconds; before the first time, when this was made and what it may cost
};

}  // namespace nf
