#include "tools/trainer/checkpoint.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "nf/error.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

const std::vector<float> kWeights(1000, 0.25F);

CheckpointData data_of(int64_t step, const std::vector<float>& weights = kWeights) {
  CheckpointData data;
  const auto bytes = std::as_bytes(std::span(weights));
  data.model.push_back({"w", DType::f32, {static_cast<int64_t>(weights.size())}, bytes});
  data.optimizer.push_back({"w.m", DType::f32, {static_cast<int64_t>(weights.size())}, bytes});
  data.config_json = "{}";
  data.trainer_state_json = fmt::format(R"({{"step": {}}})", step);
  data.files.emplace_back("tokenizer.json", "{\"type\": \"byte\"}");
  return data;
}

void flip_byte(const fs::path& file, int64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const auto byte = static_cast<char>(stream.get() ^ 1);
  stream.seekp(at);
  stream.put(byte);
  REQUIRE(stream.good());
}

}  // namespace

TEST_CASE("checkpoint: what is written is read back") {
  const Folder run;
  const fs::path folder = write_checkpoint(run.path / "deep/run", 300, data_of(300));
  CHECK(folder == run.path / "deep/run/checkpoint-300");
  CHECK_FALSE(find_damage(folder));
  const Checkpoint checkpoint = open_checkpoint(folder);
  CHECK(checkpoint.step == 300);
  CHECK(std::memcmp(checkpoint.model.at("w").bytes.data(), kWeights.data(), 4000) == 0);
  CHECK(checkpoint.optimizer.at("w.m").shape == Shape{1000});
  CHECK(checkpoint.config_json == "{}");
  CHECK(checkpoint.trainer_state_json == R"({"step": 300})");
  CHECK(read_file(folder / "tokenizer.json") == "{\"type\": \"byte\"}");
}

TEST_CASE("checkpoint: a model in shards is whole or damaged as one") {
  const Folder run;
  CheckpointData data = data_of(1);
  data.shard_bytes = 8;
  const std::vector<float> more = {7, 8};
  data.model.push_back({"more", DType::f32, {2}, std::as_bytes(std::span(more))});
  const fs::path folder = write_checkpoint(run.path, 1, data);
  CHECK_FALSE(fs::exists(folder / "model.safetensors"));
  CHECK_FALSE(find_damage(folder));
  CHECK(open_checkpoint(folder).model.tensors().size() == data.model.size());
  fs::remove(folder / "model-00001-of-00002.safetensors");
  CHECK(find_damage(folder)->find("model-00001-of-00002.safetensors: missing") != std::string::npos);
}

TEST_CASE("checkpoint: the newest is found by number, an empty run has none") {
  const Folder run;
  CHECK_FALSE(latest_valid(run.path / "none").folder);
  CHECK_FALSE(latest_valid(run.path).folder);
  for (const int64_t step : {100, 20, 3}) write_checkpoint(run.path, step, data_of(step));
  fs::create_directories(run.path / "checkpoint-999x");
  fs::create_directories(run.path / "checkpoint-0999");
  const FoundCheckpoint found = latest_valid(run.path);
  CHECK(found.step == 100);
  CHECK(found.messages.empty());
}

TEST_CASE("checkpoint: an altered, short, missing or unlisted file makes the one before be used") {
  const Folder run;
  for (const int64_t step : {1, 2}) write_checkpoint(run.path, step, data_of(step));
  const fs::path last = run.path / "checkpoint-2";
  std::string expected;
  SUBCASE("a flipped bit in the weights") {
    flip_byte(last / "model.safetensors", 3000);
    expected = "model.safetensors: its hash is not the manifest's";
  }
  SUBCASE("a flipped bit in the state") {
    flip_byte(last / "trainer_state.json", 3);
    expected = "trainer_state.json: its hash";
  }
  SUBCASE("a file cut short") {
    fs::resize_file(last / "optimizer.safetensors", 100);
    expected = "optimizer.safetensors: 100 bytes, the manifest says";
  }
  SUBCASE("a missing file") {
    fs::remove(last / "tokenizer.json");
    expected = "tokenizer.json: missing";
  }
  SUBCASE("no manifest: the writer was stopped, or a removal was") {
    fs::remove(last / "manifest.json");
    expected = "manifest.json: cannot open";
  }
  SUBCASE("a torn manifest") {
    fs::resize_file(last / "manifest.json", 50);
    expected = "not valid JSON";
  }
  SUBCASE("a manifest that points outside") {
    write_file(last / "manifest.json", R"({"format": 1, "step": 2, "files": {"model.safetensors": 1,
      "optimizer.safetensors": 1, "config.json": 1, "trainer_state.json": 1, "../x": 1}})");
    expected = "not a plain name";
  }
  SUBCASE("a manifest that lists nothing") {
    write_file(last / "manifest.json", R"({"format": 1, "step": 2, "files": {}})");
    expected = "lists no model.safetensors";
  }
  SUBCASE("a manifest of another format") {
    write_file(last / "manifest.json", R"({"format": 2, "step": 2, "files": {}})");
    expected = "written by another version";
  }
  const FoundCheckpoint found = latest_valid(run.path);
  CHECK(found.step == 1);
  REQUIRE(found.messages.size() == 1);
  CHECK(found.messages[0].find(expected) != std::string::npos);
  CHECK(found.messages[0].find("checkpoint-2") != std::string::npos);
  CHECK_THROWS_AS(find_checkpoint(last), Error);
  CHECK(find_checkpoint(run.path).step == 1);
  CHECK(find_checkpoint(run.path / "checkpoint-1").step == 1);
}

TEST_CASE("checkpoint: nothing whole to resume from is an error that says why") {
  const Folder run;
  CHECK_THROWS_WITH_AS(find_checkpoint(run.path / "none"), doctest::Contains("no such folder"), Error);
  CHECK_THROWS_WITH_AS(find_checkpoint(run.path), doctest::Contains("no checkpoint"), Error);
  write_checkpoint(run.path, 1, data_of(1));
  flip_byte(run.path / "checkpoint-1/model.safetensors", 3000);
  CHECK_THROWS_WITH_AS(find_checkpoint(run.path), doctest::Contains("its hash is not the manifest's"), Error);
}

TEST_CASE("checkpoint: writing a step again replaces it") {
  const Folder run;
  write_checkpoint(run.path, 5, data_of(5));
  CheckpointData data = data_of(5);
  data.files.clear();
  data.config_json = "{\"again\": 1}";
  write_checkpoint(run.path, 5, data);
  CHECK(run.names() == Names{"checkpoint-5"});
  CHECK_FALSE(find_damage(run.path / "checkpoint-5"));
  CHECK(open_checkpoint(run.path / "checkpoint-5").config_json == "{\"again\": 1}");
  CHECK_FALSE(fs::exists(run.path / "checkpoint-5/tokenizer.json"));
}

TEST_CASE("checkpoint: the last ones and the best are kept") {
  const Folder run;
  for (int64_t step = 1; step <= 5; ++step) write_checkpoint(run.path, step, data_of(step));
  mark_best(run.path, 4);
  mark_best(run.path, 2);
  CHECK(fs::read_symlink(run.path / "best") == "checkpoint-2");
  CHECK(prune_checkpoints(run.path, 2).size() == 2);
  CHECK(run.names() == Names{"best", "checkpoint-2", "checkpoint-4", "checkpoint-5"});
  CHECK_FALSE(find_damage(run.path / "best"));
  CHECK(find_checkpoint(run.path / "best").step == 2);
  CHECK_THROWS_WITH_AS(mark_best(run.path, 3), doctest::Contains("no such checkpoint"), Error);
  CHECK_THROWS_AS(prune_checkpoints(run.path, 0), Error);
}

TEST_CASE("checkpoint: leftovers of dead writers go, those of living ones stay") {
  const Folder run;
  fs::create_directories(run.path / "checkpoint-1.tmp");
  write_file(run.path / "checkpoint-1.tmp/model.safetensors", "half");
  fs::create_directories(run.path / "checkpoint-2.tmp");
  fs::create_directories(run.path / "someone.tmp");
  const int living = ::open((run.path / "checkpoint-2.tmp").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(::flock(living, LOCK_EX) == 0);
  clean_stale(run.path);
  CHECK(run.names() == Names{"checkpoint-2.tmp", "someone.tmp"});
  CHECK_THROWS_AS(write_checkpoint(run.path, 2, data_of(2)), Error);
  CHECK(run.names() == Names{"checkpoint-2.tmp", "someone.tmp"});
  ::close(living);
  write_checkpoint(run.path, 2, data_of(2));
  CHECK(run.names() == Names{"checkpoint-2", "someone.tmp"});
}

TEST_CASE("checkpoint: one set aside by a writer that died comes back") {
  const Folder run;
  write_checkpoint(run.path, 1, data_of(1));
  fs::rename(run.path / "checkpoint-1", run.path / "checkpoint-1.old.tmp");
  clean_stale(run.path);
  CHECK(find_checkpoint(run.path).step == 1);
}

TEST_CASE("checkpoint: a killed writer leaves the one before") {
  const Folder run;
  write_checkpoint(run.path, 1, data_of(1));
  const std::vector<float> many(4'000'000, 1.0F);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (int64_t step = 2;; ++step) write_checkpoint(run.path, step, data_of(step, many));
  }
  ::usleep(60'000);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const FoundCheckpoint found = latest_valid(run.path);
  REQUIRE(found.folder);
  CHECK(found.messages.empty());  // what has its name is whole
  CHECK(found.step >= 1);
  write_checkpoint(run.path, found.step + 1, data_of(found.step + 1));
  CHECK(latest_valid(run.path).step == found.step + 1);
  for (const std::string& name : run.names()) CHECK_FALSE(name.ends_with(".tmp"));
}

TEST_CASE("checkpoint: a full disk is an error, and nothing is lost") {
  const Folder run;
  write_checkpoint(run.path, 1, data_of(1));
  const std::vector<float> many(100'000, 1.0F);
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{.rlim_cur = 50'000, .rlim_max = limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const int64_t step : {1, 2}) {
    std::string message;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    try {
      write_checkpoint(run.path, step, data_of(step, many));
    } catch (const Error& error) {
      message = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &limit);
    CHECK(message.find("model.safetensors: cannot write: File too large") != std::string::npos);
    CHECK(run.names() == Names{"checkpoint-1"});
    CHECK_FALSE(find_damage(run.path / "checkpoint-1"));
  }
  std::signal(SIGXFSZ, handler);
}

TEST_CASE("checkpoint: names of further files") {
  const Folder run;
  for (const char* name : {"config.json", "manifest.json", "../x", "", ".", "tokenizer.json"}) {
    CheckpointData data = data_of(1);
    data.files.emplace_back(name, "x");
    CHECK_THROWS_WITH_AS(write_checkpoint(run.path, 1, data), doctest::Contains("taken or not a plain name"),
                         Error);
  }
  CHECK(run.names().empty());
  CHECK_THROWS_WITH_AS(write_checkpoint(run.path, -1, data_of(1)), doctest::Contains("negative"), Error);
}
