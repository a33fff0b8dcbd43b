#include "models/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nf {
namespace {

std::vector<double> plain_frequencies(double theta, int64_t width) {
  std::vector<double> inverse;
  for (int64_t j = 0; j < width; j += 2)
    inverse.push_back(std::pow(theta, -static_cast<double>(j) / static_cast<double>(width)));
  return inverse;
}

// Llama 3.1: long wavelengths are stretched, short ones kept, with a linear blend between.
void stretch_llama3(std::vector<double>& inverse, const RopeScaling& scaling, double original) {
  for (double& frequency : inverse) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double smooth = std::clamp((original / wavelength - scaling.low_freq_factor) /
                                         (scaling.high_freq_factor - scaling.low_freq_factor),
                                     0.0, 1.0);
    frequency = (1 - smooth) * frequency / scaling.factor + smooth * frequency;
  }
}

double yarn_magnitude(double scale, double m) { return scale <= 1 ? 1 : 0.1 * m * std::log(scale) + 1; }

// YaRN (arXiv 2309.00071): the blend runs between the dimensions that turn beta_fast and beta_slow times.
void stretch_yarn(RopeFrequencies& result, const RopeScaling& scaling, double theta, int64_t width,
                  double original) {
  const auto d = static_cast<double>(width);
  const auto dimension_of = [&](double rotations) {
    return d * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  const double low = std::max(std::floor(dimension_of(scaling.beta_fast)), 0.0);
  const double high = std::min(std::ceil(dimension_of(scaling.beta_slow)), d - 1);
  const double span = high == low ? 0.001 : high - low;
  for (size_t j = 0; j < result.inverse.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / span, 0.0, 1.0);
    result.inverse[j] = result.inverse[j] / scaling.factor * ramp + result.inverse[j] * (1 - ramp);
  }
  if (scaling.attention_factor)
    result.factor = *scaling.attention_factor;
  else if (scaling.mscale.value_or(0) != 0 && scaling.mscale_all_dim.value_or(0) != 0)
    result.factor = yarn_magnitude(scaling.factor, *scaling.mscale) /
                    yarn_magnitude(scaling.factor, *scaling.mscale_all_dim);
  else
    result.factor = yarn_magnitude(scaling.factor, 1);
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config, int64_t width, int64_t length) {
  RopeFrequencies result{.inverse = plain_frequencies(config.rope_theta, width)};
  if (!config.rope_scaling) return result;
  const RopeScaling& scaling = *config.rope_scaling;
  const auto longest = static_cast<double>(config.max_position_embeddings);
  const double original = scaling.original_max_position_embeddings > 0
                              ? static_cast<double>(scaling.original_max_position_embeddings)
                              : longest;
  const auto d = static_cast<double>(width);
  switch (scaling.type) {
    case RopeScalingType::linear:
      for (double& frequency : result.inverse) frequency /= scaling.factor;
      break;
    case RopeScalingType::dynamic: {  // the base grows once a sequence is longer than the model was made for
      const double longer = std::max(static_cast<double>(length), longest);
      const double base =
          config.rope_theta * std::pow(scaling.factor * longer / longest - (scaling.factor - 1), d / (d - 2));
      result.inverse = plain_frequencies(base, width);
      break;
    }
    case RopeScalingType::llama3: stretch_llama3(result.inverse, scaling, original); break;
    case RopeScalingType::yarn: stretch_yarn(result, scaling, config.rope_theta, width, original); break;
  }
  return result;
}

Rope rope_tables(Graph& graph, const ModelConfig& config, int64_t width, int64_t length) {
  const RopeFrequencies frequencies = rope_frequencies(config, width, length);
  const auto half = frequencies.inverse.size();
  std::vector<double> cos, sin;
  cos.reserve(static_cast<size_t>(length) * half * 2);
  sin.reserve(cos.capacity());
  for (int64_t t = 0; t < length; ++t)
    for (size_t j = 0; j < 2 * half; ++j) {
      const double angle = static_cast<double>(t) * frequencies.inverse[j % half];
      cos.push_back(std::cos(angle) * frequencies.factor);
      sin.push_back((j < half ? -1 : 1) * std::sin(angle) * frequencies.factor);
    }
  const Shape shape{length, width};
  return {tensor(graph, std::move(cos), shape), tensor(graph, std::move(sin), shape)};
}

Rope rope_at(const Rope& tables, Value positions) {
  return {gather(tables.cos, positions), gather(tables.sin, positions)};
}

}  // namespace nf
