#include "tools/report/page.h"

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "nf/file.h"

namespace nf {

extern const std::string_view kPageTemplate;  // page.html; the build makes this from it

namespace {

using Ordered = nlohmann::ordered_json;

constexpr double kUsualSeconds = 10;    // between two versions of the page
constexpr double kShareOfTime = 0.008;  // that writing may take
constexpr double kAssumedCost = 0.05;   // seconds: of the first version, most of it the disk's
constexpr std::string_view kDataMark = "/*DATA*/", kTitleMark = "<!--TITLE-->";

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string quoted(const std::string& text) {
  return Ordered(text).dump(-1, ' ', false, Ordered::error_handler_t::replace);
}

std::string run_json(const PageRun& run) {
  const RunFacts& f = run.facts;
  Ordered object = {{"name", f.name},
                    {"group", f.group.empty() ? f.name : f.group},
                    {"architecture", f.architecture},
                    {"status", name(run.status)},
                    {"step", run.history ? run.history->step() : 0},
                    {"steps", f.steps},
                    {"parameters", f.parameters},
                    {"flops", f.flops_per_token},
                    {"kv", f.kv_cache_bytes},
                    {"memory", f.memory_bytes}};
  if (!f.config_json.empty()) object["config"] = Ordered::parse(f.config_json);
  std::string text = object.dump(-1, ' ', false, Ordered::error_handler_t::replace);
  if (run.history) {
    text.pop_back();
    text += ",\"train\":" + run.history->training().to_json() +
            ",\"val\":" + run.history->validation().to_json() + "}";
  }
  return text;
}

std::string data_json(const Page& page) {
  std::string out = "{\"title\":" + quoted(page.title) + ",\"subtitle\":" + quoted(page.subtitle) +
                    ",\"written\":" + std::to_string(std::time(nullptr)) + ",\"findings\":" +
                    Ordered(page.findings).dump(-1, ' ', false, Ordered::error_handler_t::replace) +
                    ",\"table\":" + (page.table_json.empty() ? "null" : page.table_json) + ",\"runs\":[";
  for (const PageRun& run : page.runs) out += run_json(run) + ",";
  if (out.back() == ',') out.pop_back();
  return out + "]}";
}

// Nothing in it may end the script or begin markup.
std::string harmless(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

}  // namespace

std::string_view name(RunStatus status) {
  constexpr std::string_view kNames[] = {"waiting", "running", "stopped", "done", "failed"};
  return kNames[static_cast<size_t>(status)];
}

std::string render(const Page& page) {
  std::string out(kPageTemplate);
  const auto put = [&](std::string_view mark, const std::string& text) {
    out.replace(out.find(mark), mark.size(), text);
  };
  put(kTitleMark, escaped(page.title));
  put(kDataMark, harmless(data_json(page)));
  return out;
}

PageWriter::PageWriter(std::filesystem::path file)
    : file_(std::move(file)), last_written_(now()), cost_(kAssumedCost) {}

bool PageWriter::due(bool worthwhile) const {
  const double usual = worthwhile ? 0 : kUsualSeconds;
  return now() - last_written_ >= std::max(usual, cost_ / kShareOfTime);
}

void PageWriter::write(const Page& page) {
  const double begin = now();
  write_file(file_, render(page));
  last_written_ = now();
  cost_ = last_written_ - begin;
}

}  // namespace nf
