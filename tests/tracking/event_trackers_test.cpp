// TensorBoard's and W&B's files: resumed, damaged, and refused. What is inside is read by other people's code
// in tests/e2e/trackers_test.sh.
#include <doctest/doctest.h>

#include <array>

#include "nf/error.h"
#include "nf/file.h"
#include "tests/support/folder.h"
#include "tools/tracking/tensorboard_tracker.h"
#include "tools/tracking/wandb_log.h"
#include "tools/tracking/wandb_tracker.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

constexpr const char* kConfig = R"({"hidden_size": 32, "training": {"lr": 0.001}})";

void log_steps(Tracker& tracker, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step)
    tracker.log(step, std::array{Metric{"loss", 1.0 / static_cast<double>(step)}, Metric{"memory", 1e6}});
}

fs::path only_file(const fs::path& folder, const std::string& ending) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.path().string().ends_with(ending) || entry.path().filename().string().starts_with(ending))
      found.push_back(entry.path());
  REQUIRE(found.size() == 1);
  return found.front();
}

// Steps of the history, in order, and whether the run has ended.
std::pair<std::vector<int64_t>, bool> wandb_steps(const fs::path& file) {
  std::pair<std::vector<int64_t>, bool> result;
  read_wandb_log(read_file(file), [&](std::string_view record, int64_t) {
    if (const auto history = bytes_field(record, 2))
      result.first.push_back(number_field(*bytes_field(*history, 2), 1).value_or(0));
    if (bytes_field(record, 18)) result.second = true;
    return true;
  });
  return result;
}

}  // namespace

TEST_CASE("tensorboard: a resumed run has each step once, in one file") {
  const Folder folder;
  const fs::path events = folder.path / "tensorboard";
  {
    TensorboardTracker tracker(events, std::nullopt, kConfig);
    log_steps(tracker, 1, 6);
  }
  const fs::path file = only_file(events, "events.out.tfevents.");
  const std::string before = read_file(file);
  {
    TensorboardTracker tracker(events, 4, kConfig);
    tracker.close();
  }
  const std::string cut = read_file(file);
  CHECK(before.starts_with(cut));
  // Every step's record is equally long.
  CHECK(cut.size() < before.size());
  TensorboardTracker tracker(events, 4, kConfig);
  log_steps(tracker, 5, 6);
  tracker.close();
  CHECK(read_file(file).size() == before.size());
  CHECK_THROWS_AS(log_steps(tracker, 7, 7), Error);
}

TEST_CASE("tensorboard: what is damaged is cut off, what is no event file is left alone") {
  const Folder folder;
  {
    TensorboardTracker tracker(folder.path, std::nullopt, kConfig);
    log_steps(tracker, 1, 3);
  }
  const fs::path file = only_file(folder.path, "events.out.tfevents.");
  std::string bytes = read_file(file);
  const size_t whole = bytes.size();
  bytes[whole - 30] ^= 1;
  write_file(file, bytes);
  TensorboardTracker(folder.path, 3, kConfig).close();
  CHECK(read_file(file).size() < whole - 30);
  fs::remove(file);
  folder.write("events.out.tfevents.9", "something else");
  TensorboardTracker(folder.path, 3, kConfig).close();
  CHECK(read_file(folder.path / "events.out.tfevents.9") == "something else");
  CHECK(folder.names().size() == 2);
}

TEST_CASE("wandb: a resumed run goes on in its folder, without the end it had") {
  const Folder folder;
  {
    WandbTracker tracker(folder.path, std::nullopt, {.name = "run", .config_json = kConfig});
    log_steps(tracker, 1, 6);
    tracker.log(6, std::array{Metric{"val_loss", 2}});  // belongs to the same record
    tracker.close();
    CHECK_THROWS_AS(log_steps(tracker, 7, 7), Error);
  }
  const fs::path file = only_file(folder.path, ".wandb");
  CHECK(wandb_steps(file) == std::pair(std::vector<int64_t>{1, 2, 3, 4, 5, 6}, true));
  folder.write(fs::relative(file, folder.path).string() + ".synced", "");
  {
    WandbTracker tracker(folder.path, 4, {.name = "run", .config_json = kConfig});
    CHECK(!fs::exists(file.string() + ".synced"));
    CHECK(tracker.folder() == file.parent_path());
    CHECK(wandb_steps(file) == std::pair(std::vector<int64_t>{1, 2, 3, 4}, false));
    log_steps(tracker, 5, 5);
    tracker.flush();
    CHECK(wandb_steps(file).first == std::vector<int64_t>{1, 2, 3, 4, 5});
    log_steps(tracker, 6, 6);  // not flushed: lost with the process
  }
  WandbTracker tracker(folder.path, 5, {.name = "run", .config_json = kConfig});
  log_steps(tracker, 6, 7);
  tracker.close();
  CHECK(wandb_steps(only_file(folder.path, ".wandb")) ==
        std::pair(std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7}, true));
}

TEST_CASE("wandb: names and configs with every character") {
  const Folder folder;
  WandbTracker tracker(folder.path, std::nullopt,
                       {.name = "a \"b\": c", .config_json = R"({"key: x": "a\nb \" é", "n": null})"});
  tracker.log(1, std::array{Metric{"loss", std::numeric_limits<double>::quiet_NaN()}});
  tracker.close();
  const std::string yaml = read_file(tracker.folder() / "files/config.yaml");
  CHECK(yaml.find("  value: \"a\\nb \\\" é\"\n") != std::string::npos);
  CHECK(read_file(tracker.folder() / "files/wandb-summary.json").find("\"loss\":\"NaN\"") !=
        std::string::npos);
}

TEST_CASE("trackers: folders that cannot be made are errors that name them") {
  const Folder folder;
  const std::string file = folder.write("file", "");
  CHECK_THROWS_WITH_AS(TensorboardTracker(file + "/x", std::nullopt, kConfig), doctest::Contains("file/x"),
                       Error);
  CHECK_THROWS_WITH_AS(WandbTracker(file, std::nullopt, {.name = "", .config_json = kConfig}),
                       doctest::Contains("file/wandb"), Error);
}
