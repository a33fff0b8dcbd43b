#include "tests/support/graphs.h"

#include <cstring>

#include "nf/executable.h"

namespace nf::test {
namespace {

template <typename T, typename Convert>
std::vector<std::byte> encode_as(const Tensor& tensor, Convert convert) {
  std::vector<std::byte> bytes(tensor.data.size() * sizeof(T));
  for (size_t i = 0; i < tensor.data.size(); ++i) {
    const T element = convert(tensor.data[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
  }
  return bytes;
}

template <typename T, typename Convert>
Tensor decode_as(std::span<const std::byte> bytes, const Shape& shape, Convert convert) {
  Tensor tensor{shape, std::vector<double>(bytes.size() / sizeof(T))};
  for (size_t i = 0; i < tensor.data.size(); ++i) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    tensor.data[i] = convert(element);
  }
  return tensor;
}

}  // namespace

std::vector<Tensor> run_reference(const Graph& graph, const Bindings& inputs, Bindings state) {
  verify(graph);
  return reference::evaluate(graph, inputs, state);
}

Tensor value_of(Value x, const Bindings& inputs, const Bindings& state) {
  x.graph->output("value", x);
  return run_reference(*x.graph, inputs, state).back();
}

std::vector<std::byte> encode(const Tensor& tensor, DType dtype) {
  switch (dtype) {
    case DType::f32: return encode_as<float>(tensor, [](double x) { return static_cast<float>(x); });
    case DType::bf16: return encode_as<bf16>(tensor, [](double x) { return to_bf16(static_cast<float>(x)); });
    case DType::f16: return encode_as<f16>(tensor, [](double x) { return to_f16(static_cast<float>(x)); });
    case DType::f64: return encode_as<double>(tensor, [](double x) { return x; });
    case DType::i32: return encode_as<int32_t>(tensor, [](double x) { return static_cast<int32_t>(x); });
    case DType::i64: return encode_as<int64_t>(tensor, [](double x) { return static_cast<int64_t>(x); });
    case DType::u8: return encode_as<uint8_t>(tensor, [](double x) { return static_cast<uint8_t>(x); });
    case DType::boolean: return encode_as<uint8_t>(tensor, [](double x) { return uint8_t{x != 0}; });
  }
  return {};
}

Tensor decode(std::span<const std::byte> bytes, const TensorType& type) {
  const auto widened = [](auto x) { return static_cast<double>(x); };
  const auto from_narrow = [](auto x) { return static_cast<double>(to_float(x)); };
  switch (type.dtype) {
    case DType::f32: return decode_as<float>(bytes, type.shape, widened);
    case DType::bf16: return decode_as<bf16>(bytes, type.shape, from_narrow);
    case DType::f16: return decode_as<f16>(bytes, type.shape, from_narrow);
    case DType::f64: return decode_as<double>(bytes, type.shape, widened);
    case DType::i32: return decode_as<int32_t>(bytes, type.shape, widened);
    case DType::i64: return decode_as<int64_t>(bytes, type.shape, widened);
    case DType::u8:
    case DType::boolean: return decode_as<uint8_t>(bytes, type.shape, widened);
  }
  return {};
}

double rounded(double value, DType dtype) {
  switch (dtype) {
    case DType::f32: return static_cast<double>(static_cast<float>(value));
    case DType::bf16: return static_cast<double>(to_float(to_bf16(static_cast<float>(value))));
    case DType::f16: return static_cast<double>(to_float(to_f16(static_cast<float>(value))));
    default: return value;
  }
}

std::vector<Tensor> run_on(const std::shared_ptr<const Device>& device, const Graph& graph,
                           const Bindings& inputs, Bindings& state, const CompileOptions& options) {
  const auto memory = std::make_shared<State>(device);
  const auto executable = compile(graph, memory, options);
  for (const std::string& name : memory->names())
    memory->write(name, encode(state.at(name), memory->type(name).dtype));
  for (const auto& [name, tensor] : inputs)
    if (executable->has_input(name))
      executable->set_bytes(name, encode(tensor, executable->input_type(name).dtype));
  executable->run();
  std::vector<Tensor> results;
  for (const Graph::Output& output : graph.outputs()) {
    const TensorType& type = executable->output_type(output.name);
    std::vector<std::byte> bytes(static_cast<size_t>(type.bytes()));
    executable->get_bytes(output.name, bytes);
    results.push_back(decode(bytes, type));
  }
  for (const std::string& name : memory->names()) {
    std::vector<std::byte> bytes(static_cast<size_t>(memory->type(name).bytes()));
    memory->read(name, bytes);
    state[name] = decode(bytes, memory->type(name));
  }
  return results;
}

}  // namespace nf::test
