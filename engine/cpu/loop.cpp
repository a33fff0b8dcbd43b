// Runs a compiled loop: cuts it into tasks, walks their tiles, and combines column reductions.
#include "cpu/loop.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "cpu/loop_program.h"

namespace nf::cpu {
namespace {

// Columns of a task when partial results are combined, and the loop that is too small to share.
constexpr int64_t kCombineColumns = 4096, kSmallLoop = 8192;
constexpr size_t kAlignment = 64;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A piece of the iteration space for one thread.
struct Task {
  int64_t first_row = 0, last_row = 0;  // rows [first, last)
  int64_t first_col = 0, last_col = 0;
  int64_t block = 0;  // of the column reductions
};

// One thread's view of a running program.
class Worker {
 public:
  Worker(const LoopProgram& program, std::byte* memory, float* partial)
      : program_(program), slots_(reinterpret_cast<void**>(memory)), partial_(partial) {
    size_t slot = program_.streams.size();
    for (const uint32_t& lane : program_.constants) slots_[slot++] = const_cast<uint32_t*>(&lane);
    std::byte* scratch = memory + aligned(static_cast<size_t>(program_.slots()) * sizeof(void*));
    for (const int64_t offset : program_.registers) slots_[slot++] = scratch + offset;
  }

  void run(const Task& task) {
    block_ = task.block;
    move_to(task.first_row, 0);
    execute(program_.prologue, 1, program_.cols, 0);
    if (program_.chunked) {
      for (int64_t row = task.first_row; row < task.last_row; ++row) run_row(row, task);
    } else {
      const int64_t inner = program_.lead.empty() ? 1 : program_.lead.back();
      const Stage& stage = program_.stages.front();
      for (int64_t row = task.first_row, count = 0; row < task.last_row; row += count) {
        count = std::min({program_.tile_rows, task.last_row - row, inner - row % inner});
        move_to(row, 0);
        execute_body(stage, count, program_.cols, 0);
      }
    }
  }

 private:
  void run_row(int64_t row, const Task& task) {
    for (const Stage& stage : program_.stages) {
      move_to(row, 0);
      execute(stage.before, 1, 1, 0);
      for (int64_t col = task.first_col; col < task.last_col && !stage.body.empty();
           col += program_.tile_cols) {
        move_to(row, col);
        execute_body(stage, 1, std::min(program_.tile_cols, task.last_col - col), col);
      }
      execute(stage.after, 1, 1, 0);
    }
  }

  // Lets the streams' slots point to this place in the iteration space.
  void move_to(int64_t row, int64_t col) {
    const Shape& lead = program_.lead;
    int64_t index[Shape::kMaxRank] = {};
    for (int axis = lead.rank() - 1; axis >= 0; --axis) {
      index[axis] = row % lead[axis];
      row /= lead[axis];
    }
    index[lead.rank()] = col;
    for (size_t s = 0; s < program_.streams.size(); ++s) {
      const Stream& stream = program_.streams[s];
      const int axes = lead.rank() + (stream.shift == 0 ? 1 : 0);  // a rolled load finds its columns itself
      int64_t offset = 0;
      for (int axis = 0; axis < axes; ++axis) offset += index[axis] * stream.strides[axis];
      auto base = reinterpret_cast<uintptr_t>(stream.data);
      if (stream.kind == Stream::Kind::column)
        base = reinterpret_cast<uintptr_t>(partial_ + block_ * program_.blocks.lanes +
                                           program_.columns[static_cast<size_t>(stream.index)].offset);
      slots_[s] = reinterpret_cast<void*>(base + static_cast<uintptr_t>(offset * stream.element));
    }
  }

  void execute_body(const Stage& stage, int64_t rows, int64_t cols, int64_t col) {
    if (stage.code == nullptr) return execute_ahead(stage.body, rows, cols, col);
    execute(stage.early, rows, cols, col);
    if (program_.cols == 1)
      stage.code->run(slots_, 1, rows);
    else
      stage.code->run(slots_, rows, cols);
    execute(stage.late, rows, cols, col);
  }

  // The same while the memory of the next tile comes near, a part of it with each instruction, so that
  // waiting for memory and computing overlap.
  void execute_ahead(const std::vector<Instruction>& code, int64_t rows, int64_t cols, int64_t col) {
    // One instruction streams through memory well enough by itself.
    if (program_.prefetched.empty() || code.size() < 2) return execute(code, rows, cols, col);
    constexpr int64_t kLine = 64;
    const auto parts = static_cast<int64_t>(code.size());
    const int64_t elements = rows * cols;
    for (int64_t part = 0; part < parts; ++part) {
      for (const int32_t s : program_.prefetched) {
        const Stream& stream = program_.streams[static_cast<size_t>(s)];
        const int64_t lines = elements * stream.element / kLine;
        const auto* next = static_cast<const std::byte*>(slots_[s]) + elements * stream.element;
        for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line)
          __builtin_prefetch(next + line * kLine);
      }
      execute(code[static_cast<size_t>(part)], rows, cols, col);
    }
  }

  void execute(const std::vector<Instruction>& code, int64_t rows, int64_t cols, int64_t col) {
    for (const Instruction& instruction : code) execute(instruction, rows, cols, col);
  }

  void execute(const Instruction& instruction, int64_t rows, int64_t cols, int64_t col) {
    LoopArgs args;
    for (int i = 0; i < 3; ++i) {
      if (instruction.in[i] < 0) break;
      args.in[i] = slots_[instruction.in[i]];
      args.step[i] = instruction.step[i];
    }
    args.out = slots_[instruction.out];
    args.out_step = instruction.out_step;
    args.stride = instruction.stride;
    args.stream = instruction.stream;
    const Extent extent = instruction.extent;
    args.rows = extent.rows && extent.cols ? rows : 1;
    args.cols = extent.cols ? cols : extent.rows ? rows : 1;
    if (instruction.flat) {
      args.cols *= args.rows;
      args.rows = 1;
    }
    if (instruction.shift != 0)
      execute_rolled(instruction, args, col);
    else
      instruction.run(args);
  }

  // Column j of a rolled row is element (j - shift) mod cols: a load in two pieces.
  void execute_rolled(const Instruction& instruction, LoopArgs args, int64_t col) {
    const auto* row = static_cast<const std::byte*>(args.in[0]);
    const int64_t first = (col + program_.cols - instruction.shift) % program_.cols;
    const int64_t count = args.cols;
    args.in[0] = row + first * instruction.shift_bytes;
    args.cols = std::min(count, program_.cols - first);
    instruction.run(args);
    args.in[0] = row;
    args.out = static_cast<std::byte*>(args.out) + args.cols * 4;
    args.cols = count - args.cols;
    if (args.cols > 0) instruction.run(args);
  }

  const LoopProgram& program_;
  void** slots_;
  float* partial_;
  int64_t block_ = 0;
};

// ---- tasks ----

int64_t rows_per_task(const LoopProgram& program) {
  return div_up(std::max<int64_t>(kTaskElements / program.cols, 1), program.tile_rows) * program.tile_rows;
}

int64_t task_count(const LoopProgram& program) {
  if (program.blocks.count > 0) return program.blocks.count;
  if (program.chunked && !program.whole_rows) return program.rows * div_up(program.cols, kTaskElements);
  return div_up(program.rows, rows_per_task(program));
}

Task task_at(const LoopProgram& program, int64_t number) {
  Task task{.last_row = program.rows, .last_col = program.cols};
  if (const Blocks& blocks = program.blocks; blocks.count > 0) {
    const int64_t rows = program.rows / blocks.units;
    task.block = number;
    task.first_row = number * blocks.units / blocks.count * rows;
    task.last_row = (number + 1) * blocks.units / blocks.count * rows;
  } else if (program.chunked && !program.whole_rows) {
    const int64_t pieces = div_up(program.cols, kTaskElements);
    task.first_row = number / pieces;
    task.last_row = task.first_row + 1;
    task.first_col = number % pieces * kTaskElements;
    task.last_col = std::min(program.cols, task.first_col + kTaskElements);
  } else {
    task.first_row = number * rows_per_task(program);
    task.last_row = std::min(program.rows, task.first_row + rows_per_task(program));
  }
  return task;
}

// ---- column reductions ----

void clear_block(const LoopProgram& program, float* partial, int64_t block) {
  for (const ColumnReduction& column : program.columns) {
    auto* lanes = reinterpret_cast<uint32_t*>(partial + block * program.blocks.lanes + column.offset);
    std::fill(lanes, lanes + column.kept, column.identity);
  }
}

LoopFunction function(Code code) { return loop_table()[static_cast<size_t>(code)][0]; }

// Folds the blocks in order into the first one.
void fold_blocks(const LoopProgram& program, const ColumnReduction& column, float* partial, int threads) {
  const int64_t blocks = program.blocks.count;
  if (blocks == 1) return;
  const int64_t pieces = div_up(column.kept, kCombineColumns);
  parallel_for(threads, pieces, [&](int64_t piece) {
    const int64_t first = piece * kCombineColumns;
    float* lanes = partial + column.offset + first;
    LoopArgs args;
    args.in[0] = lanes + program.blocks.lanes;
    args.step[0] = program.blocks.lanes * 4;
    args.out = lanes;
    args.rows = blocks - 1;
    args.cols = std::min(kCombineColumns, column.kept - first);
    function(column.code)(args);
  });
}

// Writes lanes, dense, to a tensor of any strides.
void store_lanes(const float* lanes, const TensorView& view) {
  const Shape& shape = view.shape;
  const int64_t element = size_of(view.dtype), cols = shape.back();
  LoopArgs args;
  args.rows = 1;
  args.cols = cols;
  args.stride = view.strides.back() * element;
  const LoopFunction store = function(store_code(view.dtype, args.stride != element && cols > 1));
  for (int64_t row = 0, rows = shape.elements() / cols; row < rows; ++row) {
    int64_t offset = 0, rest = row;
    for (int axis = shape.rank() - 2; axis >= 0; --axis) {
      offset += rest % shape[axis] * view.strides[axis];
      rest /= shape[axis];
    }
    args.in[0] = lanes + row * cols;
    args.out = static_cast<std::byte*>(view.data) + offset * element;
    store(args);
  }
}

std::string text_of(const LoopProgram& program, int32_t slot) {
  const auto streams = static_cast<int32_t>(program.streams.size());
  const auto constants = static_cast<int32_t>(program.constants.size());
  if (slot >= streams + constants) return fmt::format("r{}", slot - streams - constants);
  if (slot >= streams) {
    float value = 0;
    std::memcpy(&value, &program.constants[static_cast<size_t>(slot - streams)], sizeof value);
    return fmt::format("{}", value);
  }
  static constexpr const char* kKinds[] = {"in", "iota", "philox", "out", "column"};
  const Stream& stream = program.streams[static_cast<size_t>(slot)];
  return fmt::format("{}{}", kKinds[static_cast<size_t>(stream.kind)], stream.index);
}

void append(std::string& text, const LoopProgram& program, const std::string& title,
            const std::vector<Instruction>& code) {
  if (code.empty()) return;
  text += fmt::format("  {}:\n", title);
  for (const Instruction& instruction : code) {
    text += fmt::format("    {} = {}", text_of(program, instruction.out), name(instruction.code));
    for (int i = 0; i < 3 && instruction.in[i] >= 0; ++i)
      text += fmt::format("{} {}{}", i == 0 ? "" : ",", text_of(program, instruction.in[i]),
                          (instruction.pattern >> i & 1) != 0 ? " (splat)" : "");
    const char* extent = instruction.extent.cols   ? instruction.extent.rows ? "" : "  # one row"
                         : instruction.extent.rows ? "  # per row"
                                                   : "  # scalar";
    text += fmt::format("{}\n", extent);
  }
}

}  // namespace

LoopKernel::LoopKernel(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                       std::span<const TensorView> outputs, LoopCodes* codes) {
  LoopProgram program = compile_loop(body, space, inputs, outputs);
  if (codes != nullptr) codes->compile(program, {scratch_bound(body, space), slot_bound(body)});
  require(program.scratch <= scratch_bound(body, space) && program.slots() <= slot_bound(body),
          "loop: the program needs {} bytes and {} slots, more than was planned", program.scratch,
          program.slots());
  program_ = std::make_unique<const LoopProgram>(std::move(program));
}

LoopKernel::~LoopKernel() = default;
LoopKernel::LoopKernel(LoopKernel&&) noexcept = default;
LoopKernel& LoopKernel::operator=(LoopKernel&&) noexcept = default;

size_t LoopKernel::workspace(const Graph& body, const Shape& space, int threads) {
  const Blocks blocks = column_blocks(body, space);
  const size_t partial = aligned(static_cast<size_t>(blocks.count * blocks.lanes) * sizeof(float));
  const size_t worker = aligned(static_cast<size_t>(slot_bound(body)) * sizeof(void*)) +
                        aligned(static_cast<size_t>(scratch_bound(body, space)));
  return kAlignment + partial + static_cast<size_t>(std::max(threads, 1)) * worker;
}

void LoopKernel::run(void* workspace, int threads) const {
  const LoopProgram& program = *program_;
  const int64_t elements = program.rows * program.cols;
  if (elements < kSmallLoop) threads = 1;
  const auto address = reinterpret_cast<uintptr_t>(workspace);
  auto* memory = static_cast<std::byte*>(workspace) + (aligned(address) - address);
  auto* partial = reinterpret_cast<float*>(memory);
  memory += aligned(static_cast<size_t>(program.blocks.count * program.blocks.lanes) * sizeof(float));
  const size_t per_worker = aligned(static_cast<size_t>(program.slots()) * sizeof(void*)) +
                            aligned(static_cast<size_t>(program.scratch));

  const int64_t tasks = task_count(program);
  parallel_for(threads, tasks, [&](int64_t number, int thread) {
    const Task task = task_at(program, number);
    if (program.blocks.count > 0) clear_block(program, partial, task.block);
    if (elements > 0) Worker(program, memory + static_cast<size_t>(thread) * per_worker, partial).run(task);
  });

  for (const ColumnReduction& column : program.columns) {
    fold_blocks(program, column, partial, threads);
    if (column.kept > 0) store_lanes(partial + column.offset, column.output);
  }
}

std::string LoopKernel::describe() const {
  const LoopProgram& program = *program_;
  std::string text = fmt::format("loop {} x {}, tile {} x {}, {} bytes of registers\n", program.lead,
                                 program.cols, program.tile_rows, program.tile_cols, program.scratch);
  append(text, program, "once per task", program.prologue);
  for (const Stage& stage : program.stages) {
    append(text, program, "once per row", stage.before);
    append(text, program,
           fmt::format("per {}{}", program.chunked ? "piece of a row" : "tile",
                       stage.code != nullptr ? ", as machine code" : ""),
           stage.body);
    append(text, program, "after the row", stage.after);
  }
  return text;
}

}  // namespace nf::cpu
