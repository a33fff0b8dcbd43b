#include "tools/trainer/memory.h"

#include <doctest/doctest.h>

#include "tests/trainer/late_device.h"
#include "tests/trainer/training_support.h"

namespace nf {
namespace {

constexpr int64_t kKibi = 1024, kGibi = int64_t{1} << 30;

TEST_CASE("the machine's memory") {
  const Folder root;
  CHECK(machine_memory(root.path).total == 0);                            // not known
  root.write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 100 kB\n");  // an old kernel
  CHECK(machine_memory(root.path).available == 8 * kGibi);
  root.write("proc/meminfo",
             "MemTotal:       8388608 kB\nMemFree:        100 kB\nMemAvailable:   4194304 kB\n");
  CHECK(machine_memory(root.path).total == 8 * kGibi);
  CHECK(machine_memory(root.path).available == 4 * kGibi);

  SUBCASE("a control group of version 2 has less") {
    root.write("sys/fs/cgroup/memory.max", "max\n");
    CHECK(machine_memory(root.path).total == 8 * kGibi);
    root.write("sys/fs/cgroup/memory.max", std::to_string(2 * kGibi));
    root.write("sys/fs/cgroup/memory.current", std::to_string(kGibi));
    root.write("sys/fs/cgroup/memory.stat",
               "anon 5\nfile 7\ninactive_file " + std::to_string(kGibi / 4) + "\n");
    CHECK(machine_memory(root.path).total == 2 * kGibi);
    CHECK(machine_memory(root.path).available == kGibi + kGibi / 4);
  }
  SUBCASE("version 1") {
    root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    CHECK(machine_memory(root.path).total == 8 * kGibi);
    root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(3 * kGibi));
    root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(4 * kGibi));
    CHECK(machine_memory(root.path).total == 3 * kGibi);
    CHECK(machine_memory(root.path).available == 0);
  }
}

TEST_CASE("a GPU's memory is not all for plans") {
  struct SmallDevice : LateDevice {
    DeviceMemory memory() const override { return {.total = 8 * kGibi, .available = free}; }
    int64_t free = 0;
  } device;
  CHECK(memory_around(device).total == 8 * kGibi);
  CHECK(memory_around(device).available == 0);
  device.free = 8 * kGibi;
  CHECK(memory_around(device).available == 8 * kGibi - kGibi / 4);
}

TEST_CASE("this machine's memory") {
  const MachineMemory memory = machine_memory();
  CHECK(memory.total > kGibi / 4);
  CHECK(memory.available > 0);
  CHECK(memory.available <= memory.total);
}

struct Run {
  ModelConfig model = small_model();
  PlanOptions options;
  std::shared_ptr<const Device> device = cpu_device(1);

  Run() {
    model.vocab_size = 257;
    TrainSettings settings = small_settings("");
    settings.batch_size = 64;
    options = plan_options(model, settings, false);
  }

  MemoryEstimate needs(int64_t batch) const {
    PlanOptions other = options;
    other.batch = batch;
    other.accumulates = batch < options.batch;
    return estimate_memory(model, other, *device);
  }
  std::optional<std::string> shortage(int64_t available) const {
    return memory_shortage(needs(options.batch), model, options, *device,
                           {.total = 9 * kGibi, .available = available});
  }
};

bool contains(const std::optional<std::string>& text, std::string_view part) {
  return text && text->find(part) != std::string::npos;
}

TEST_CASE("a run that fits, to the byte, and one that does not") {
  const Run run;
  const int64_t needed = run.needs(64).least();
  CHECK(!run.shortage(needed));
  const auto line = run.shortage(needed - 1);
  CHECK(contains(line, "not enough memory: --batch-size 64 needs "));
  CHECK(contains(line, "this machine has 9.0 GiB"));
  CHECK(contains(line, "; --batch-size 32 fits, with 2 times the --grad-accum"));
  CHECK(contains(line, "; --gradient-checkpointing layer needs less"));
  CHECK(line->find('\n') == std::string::npos);
  CHECK(!memory_shortage(run.needs(64), run.model, run.options, *run.device, {}));  // nobody knows
}

TEST_CASE("the batch size that is named fits, and twice as much does not") {
  Run run;
  CHECK(contains(run.shortage(run.needs(8).least()), "; --batch-size 8 fits, with 8 times"));
  CHECK(contains(run.shortage(run.needs(8).least() - 1), "; --batch-size 4 fits, with 16 times"));
  CHECK(contains(run.shortage(run.needs(1).least() - 1), "; not even --batch-size 1 fits"));
  run.options.recompute.kind = Recompute::Kind::layer;
  CHECK(!contains(run.shortage(kKibi), "gradient-checkpointing"));
}

}  // namespace
}  // namespace nf
