#include "tools/tracking/jsonl_tracker.h"

#include <doctest/doctest.h>
#include <nf/error.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/folder.h"

using namespace nf;

namespace {

std::string content(const std::filesystem::path& file) {
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  return bytes.str();
}

void log_steps(Tracker& tracker, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step)
    tracker.log(step, std::array{Metric{"loss", 1.0 / static_cast<double>(step)}});
}

std::string lines(int64_t first, int64_t last) {
  const Folder folder;
  JsonlTracker tracker(folder.path / "m", std::nullopt);
  log_steps(tracker, first, last);
  return content(folder.path / "m");
}

}  // namespace

TEST_CASE("jsonl tracker: one line per record, numbers to the last bit") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  const std::array values = {0.1, 1.0 / 3, 1e300, 5e-324, -0.0, 123456789.0, 1e22};
  {
    JsonlTracker tracker(file, std::nullopt);
    for (size_t i = 0; i < values.size(); ++i)
      tracker.log(static_cast<int64_t>(i), std::array{Metric{"a\"\\\n\xC3\xA9", values[i]}, Metric{"b", 2}});
    tracker.log(99, {});
  }
  std::istringstream in(content(file));
  std::string line;
  for (size_t i = 0; i < values.size(); ++i) {
    REQUIRE(std::getline(in, line));
    const auto json = nlohmann::json::parse(line);
    CHECK(json["step"] == i);
    CHECK(json["a\"\\\n\xC3\xA9"].get<double>() == values[i]);
    CHECK(json["b"] == 2);
  }
  REQUIRE(std::getline(in, line));
  CHECK(line == "{\"step\":99}");
  CHECK_FALSE(std::getline(in, line));
}

TEST_CASE("jsonl tracker: what is no number is null, and read back as NaN") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  JsonlTracker tracker(file, std::nullopt);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  tracker.log(1, std::array{Metric{"loss", std::nan("")}, Metric{"norm", kInfinity}});
  tracker.log(2, std::array{Metric{"norm", 3.5}});
  CHECK(content(file) == "{\"step\":1,\"loss\":null,\"norm\":null}\n{\"step\":2,\"norm\":3.5}\n");
  const MetricSeries norm = read_metric(file, "norm"), loss = read_metric(file, "loss");
  CHECK(norm.steps == std::vector<double>{1, 2});
  CHECK(std::isnan(norm.values[0]));
  CHECK(norm.values[1] == 3.5);
  CHECK(loss.steps.size() == 1);
  CHECK(read_metric(file, "other").steps.empty());
  CHECK_THROWS_AS(read_metric(folder.path / "none", "loss"), Error);
}

TEST_CASE("jsonl tracker: every record is in the file at once") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  JsonlTracker tracker(file, std::nullopt);
  log_steps(tracker, 1, 3);
  CHECK(content(file) == lines(1, 3));
}

TEST_CASE("jsonl tracker: a killed process loses nothing it logged") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    JsonlTracker tracker(file, std::nullopt);
    log_steps(tracker, 1, 200);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(content(file) == lines(1, 200));
}

TEST_CASE("jsonl tracker: a new run starts an empty file, a resumed one appends") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  for (int run = 0; run < 2; ++run) {
    JsonlTracker tracker(file, std::nullopt);
    log_steps(tracker, 1, 5);
    tracker.close();
    tracker.close();
    CHECK_THROWS_AS(tracker.log(6, {}), Error);
  }
  CHECK(content(file) == lines(1, 5));
  JsonlTracker resumed(file, 3);
  CHECK(content(file) == lines(1, 3));
  log_steps(resumed, 4, 9);
  CHECK(content(file) == lines(1, 9));

  JsonlTracker missing(folder.path / "new.jsonl", 3);  // nothing to resume
  log_steps(missing, 4, 5);
  CHECK(content(folder.path / "new.jsonl") == lines(4, 5));
}

TEST_CASE("jsonl tracker: cut at any byte, it resumes with whole lines only") {
  const Folder folder;
  const std::string whole = lines(1, 6);
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    const auto file = folder.write("metrics.jsonl", whole.substr(0, cut));
    JsonlTracker tracker(file, 100);
    const auto complete = std::count(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(cut), '\n');
    CHECK(content(file) == (complete > 0 ? lines(1, complete) : ""));
    tracker.log(101, {});
    CHECK(content(file).ends_with("{\"step\":101}\n"));
  }
}

TEST_CASE("jsonl tracker: damage within the file is removed on resume, records are not") {
  const Folder folder;
  const std::string garbage =
      std::string("\0\0\0\0", 4) + "\n{\"step\":\n[1]\n{\"loss\":1}\n{\"step\":\"2\"}\n\n\xFF\n";
  const auto file = folder.write("metrics.jsonl", lines(1, 2) + garbage + lines(3, 4) + garbage + "{\"st");
  CHECK(read_metric(file, "loss").steps == std::vector<double>{1, 2, 3, 4});
  JsonlTracker tracker(file, 3);
  CHECK(content(file) == lines(1, 3));
}

TEST_CASE("jsonl tracker: misuse") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  JsonlTracker tracker(file, std::nullopt);
  log_steps(tracker, 5, 5);
  CHECK_THROWS_AS(tracker.log(4, {}), Error);
  CHECK_THROWS_AS(tracker.log(6, std::array{Metric{"step", 1}}), Error);
  log_steps(tracker, 5, 5);  // the same step again is fine
  CHECK(content(file) == lines(5, 5) + lines(5, 5));
  CHECK_THROWS_WITH_AS(JsonlTracker(folder.path / "no" / "m", std::nullopt), doctest::Contains("cannot open"),
                       Error);
  JsonlTracker full("/dev/full", std::nullopt);
  CHECK_THROWS_WITH_AS(full.log(1, {}), doctest::Contains("cannot write /dev/full"), Error);
}

TEST_CASE("tracker list: every tracker gets every record") {
  const Folder folder;
  TrackerList list;
  list.log(1, {});
  list.add(std::make_unique<JsonlTracker>(folder.path / "a", std::nullopt));
  list.add(std::make_unique<JsonlTracker>(folder.path / "b", std::nullopt));
  log_steps(list, 1, 2);
  list.flush();
  list.close();
  CHECK(content(folder.path / "a") == lines(1, 2));
  CHECK(content(folder.path / "b") == lines(1, 2));
}
