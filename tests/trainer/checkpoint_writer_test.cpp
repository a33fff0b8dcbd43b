#include "tools/trainer/checkpoint_writer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "nf/error.h"
#include "tests/support/folder.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// Weights that training goes on changing.
struct Weights {
  std::vector<float> values = std::vector<float>(1 << 18, 0.5F);

  CheckpointData data() const {
    CheckpointData data;
    data.model = {{"w", DType::f32, {std::ssize(values)}, std::as_bytes(std::span(values))},
                  {"empty", DType::f32, {0}, {}}};
    data.optimizer = {{"m", DType::f32, {2}, std::as_bytes(std::span(values).first(2))}};
    data.config_json = data.trainer_state_json = "{}";
    return data;
  }
};

bool holds_only(const fs::path& checkpoint, float value) {
  const SafetensorsFile file = SafetensorsFile::open(checkpoint);
  std::vector<float> values(file.at("w").bytes.size() / sizeof(float));
  std::memcpy(values.data(), file.at("w").bytes.data(), file.at("w").bytes.size());
  return std::ranges::count(values, value) == std::ssize(values);
}

struct Told {
  std::vector<fs::path> folders;
  std::function<void(const fs::path&)> function() {
    return [this](const fs::path& folder) { folders.push_back(folder); };
  }
};

TEST_CASE("checkpoint writer: what is saved is what was there, whatever happens meanwhile") {
  const Folder run;
  Weights weights;
  Told told;
  CheckpointWriter writer(run.path, 2, told.function());
  for (int64_t step = 1; step <= 4; ++step) {
    std::ranges::fill(weights.values, static_cast<float>(step));
    CHECK(writer.save(step, weights.data(), step == 2) == run.path / fmt::format("checkpoint-{}", step));
    std::ranges::fill(weights.values, -1.0F);
  }
  writer.finish();
  writer.finish();  // nothing to wait for
  CHECK(told.folders.size() == 4);
  CHECK(told.folders.back() == run.path / "checkpoint-4");
  CHECK(run.names() == std::vector<std::string>{"best", "checkpoint-2", "checkpoint-3", "checkpoint-4"});
  CHECK(fs::read_symlink(run.path / "best") == "checkpoint-2");
  for (int64_t step = 2; step <= 4; ++step) {
    const fs::path folder = run.path / fmt::format("checkpoint-{}", step);
    CHECK_FALSE(find_damage(folder));
    CHECK(holds_only(folder, static_cast<float>(step)));
  }
  CHECK(writer.copy_bytes() == (1 << 20) + 8);

  writer.mark_best(4);
  CHECK(run.names() == std::vector<std::string>{"best", "checkpoint-3", "checkpoint-4"});
}

TEST_CASE("checkpoint writer: without memory for a copy the same is written at once") {
  const Folder run;
  Weights weights;
  Told told;
  CheckpointWriter writer(run.path, 2, told.function(), [] { return int64_t{1000}; });
  writer.save(1, weights.data(), true);
  CHECK(told.folders.size() == 1);  // already
  CHECK(holds_only(run.path / "best", 0.5F));
  CHECK(writer.copy_bytes() == 0);
}

TEST_CASE("checkpoint writer: what goes wrong is thrown by the next call, and only once") {
  const Folder folder;
  folder.write("file", "in the way");
  const Weights weights;
  Told told;
  CheckpointWriter writer(folder.path / "file", 2, told.function());
  writer.save(1, weights.data(), false);
  CHECK_THROWS_WITH_AS(writer.save(2, weights.data(), false), doctest::Contains("cannot create folder"),
                       Error);
  writer.save(3, weights.data(), false);
  CHECK_THROWS_AS(writer.finish(), Error);
  writer.finish();
  CHECK(told.folders.empty());
  writer.save(4, weights.data(), false);  // and nobody asks
}

TEST_CASE("checkpoint writer: polling tells of a checkpoint without waiting for it") {
  const Folder run;
  const Weights weights;
  Told told;
  CheckpointWriter writer(run.path, 1, told.function());
  writer.poll();  // there is none
  writer.save(7, weights.data(), false);
  while (told.folders.empty()) writer.poll();
  CHECK(told.folders[0] == run.path / "checkpoint-7");
}

}  // namespace
}  // namespace nf
