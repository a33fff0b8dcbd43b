#include "tools/trainer/memory.h"

#include <algorithm>
#include <fstream>
#include <future>
#include <map>

#include "tools/tracking/terminal.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// The class a state belongs to is told by its name: see models/training_step.h and nf/optim.h.
int64_t& class_of(MemoryEstimate& memory, std::string_view state) {
  const std::string_view narrow = "@bf16";
  if (state.ends_with(narrow)) return memory.narrow_copies;
  if (state.starts_with(gradient_name(""))) return memory.gradients;
  return state.find('/') == std::string_view::npos ? memory.weights : memory.optimizer;
}

constexpr int64_t kKibi = 1024;

// What a run on a GPU takes of it beside its plans: the code of kernels, its own and the library's, recorded
// steps, and what is lost between allocations.
constexpr int64_t kBesidePlans = int64_t{256} << 20;

// The number after `key` in a file of lines "key 123 …"; with an empty key, the file's first number.
std::optional<int64_t> number_in(const fs::path& file, std::string_view key = {}) {
  std::ifstream stream(file);
  std::string word;
  while (!key.empty() && stream >> word && word != key) {
  }
  int64_t value = 0;
  return stream >> value && value >= 0 ? std::optional(value) : std::nullopt;
}

// Where a control group keeps its limit, its use, and in that the pages of files, which give way.
struct GroupFiles {
  const char *limit, *used, *statistics, *file_pages;
};
constexpr GroupFiles kGroups[] = {
    {"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat",
     "inactive_file"},
    {"sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes",
     "sys/fs/cgroup/memory/memory.stat", "total_inactive_file"}};

}  // namespace

MemoryEstimate sum_memory(std::span<const Plan> plans, std::span<const StepKind> kinds) {
  MemoryEstimate memory;
  std::map<std::string, int64_t> states;
  for (size_t i = 0; i < plans.size(); ++i) {
    for (const Plan::StateUse& use : plans[i].states) {
      states.try_emplace(use.name, use.type.bytes());
      // What the update changes is saved, but for gradients and the narrow copies.
      if (kinds[i] == StepKind::update && use.type.dtype == DType::f32 &&
          !use.name.starts_with(gradient_name("")))
        memory.checkpoint += use.type.bytes();
    }
    memory.constants += plans[i].constant_bytes;
    if (plans[i].arena_bytes() <= memory.arena()) continue;
    memory.activations = plans[i].activation_bytes;
    memory.workspace = plans[i].workspace_bytes;
    memory.arena_step = name(kinds[i]);
  }
  for (const auto& [state, bytes] : states) class_of(memory, state) += bytes;
  return memory;
}

MemoryEstimate estimate_memory(const ModelConfig& model, const PlanOptions& options, const Device& device) {
  const std::vector<StepKind> kinds = kinds_of_run(model, options);
  std::vector<std::future<Plan>> running;  // side by side: a model of 80 layers takes half a second
  for (const StepKind kind : kinds)
    running.push_back(std::async(
        std::launch::async, [&, kind] { return plan_step(model, options, device, kind, options.longest); }));
  std::vector<Plan> plans;
  for (std::future<Plan>& plan : running) plans.push_back(plan.get());
  MemoryEstimate memory = sum_memory(plans, kinds);
  if (!options.saves_midway) memory.checkpoint = 0;
  return memory;
}

int64_t process_memory(const fs::path& root) {
  return kKibi * number_in(root / "proc/self/status", "VmRSS:").value_or(0);
}

MachineMemory machine_memory(const fs::path& root) {
  constexpr int64_t kMost = int64_t{1} << 60;
  const fs::path meminfo = root / "proc/meminfo";
  MachineMemory memory{.total = kKibi * number_in(meminfo, "MemTotal:").value_or(0)};
  memory.available = memory.total;
  if (const auto available = number_in(meminfo, "MemAvailable:")) memory.available = kKibi * *available;
  for (const GroupFiles& group : kGroups) {
    const int64_t limit = number_in(root / group.limit).value_or(kMost);
    if (limit >= kMost || memory.total == 0) continue;
    const int64_t files = number_in(root / group.statistics, group.file_pages).value_or(0);
    const int64_t used = std::max<int64_t>(0, number_in(root / group.used).value_or(0) - files);
    memory.total = std::min(memory.total, limit);
    memory.available = std::min(memory.available, std::max<int64_t>(0, limit - used));
  }
  return memory;
}

MachineMemory memory_around(const Device& device) {
  if (device.shares_host_memory()) return machine_memory();
  const DeviceMemory memory = device.memory();
  return {.total = memory.total, .available = std::max<int64_t>(0, memory.available - kBesidePlans)};
}

std::optional<std::string> memory_shortage(const MemoryEstimate& needed, const ModelConfig& model,
                                           const PlanOptions& options, const Device& device,
                                           const MachineMemory& machine) {
  if (machine.total <= 0 || needed.least() <= machine.available) return std::nullopt;
  PlanOptions smaller = options;
  smaller.accumulates = true;  // what a smaller batch needs to learn the same
  bool fits = false;
  while (!fits && smaller.batch > 1) {
    smaller.batch /= 2;
    fits = estimate_memory(model, smaller, device).least() <= machine.available;
  }
  std::string line = fmt::format(
      "not enough memory: --batch-size {} needs {} ({} state + {} arena), {} has {}, {} of it free",
      options.batch, format_bytes(needed.least()), format_bytes(needed.state()),
      format_bytes(needed.arena() + needed.constants),
      device.shares_host_memory() ? "this machine" : "the GPU", format_bytes(machine.total),
      format_bytes(machine.available));
  line += fits ? fmt::format("; --batch-size {} fits, with {} times the --grad-accum for the same steps",
                             smaller.batch, options.batch / smaller.batch)
               : "; not even --batch-size 1 fits, make --seq-len or the model smaller";
  if (options.recompute.kind == Recompute::Kind::none) line += "; --gradient-checkpointing layer needs less";
  return line;
}

}  // namespace nf
