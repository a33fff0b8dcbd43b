#include "tools/tracking/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "tools/environment.h"

namespace nf {
namespace {

constexpr int kUsualWidth = 80;

int window_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsualWidth;
}

void write_to_standard_error(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return;  // a run does not end because nobody watches any more
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

bool locale_is_unicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string locale = environment(name);
    if (locale.empty()) continue;
    const size_t dot = locale.find('.');
    if (dot == std::string::npos) return true;  // no charset named: today's terminals are UTF-8
    const std::string_view charset = std::string_view(locale).substr(dot + 1);
    return charset.starts_with("UTF") || charset.starts_with("utf");
  }
  return true;
}

}  // namespace

Terminal standard_error() {
  const bool interactive = ::isatty(STDERR_FILENO) && environment("TERM") != "dumb";
  return {write_to_standard_error, window_width, interactive, interactive && environment("NO_COLOR").empty(),
          locale_is_unicode()};
}

std::string format_quantity(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  constexpr std::string_view kMagnitudes[] = {"", "k", "M", "G", "T", "P"};
  size_t magnitude = 0;
  // 999.5 would round to "1000".
  while (std::abs(value) >= 999.5 && magnitude + 1 < std::size(kMagnitudes)) {
    value /= 1000;
    ++magnitude;
  }
  const double size = std::abs(value);
  const bool whole = magnitude == 0 && (size >= 9.95 || size == std::floor(size));
  const int decimals = whole ? 0 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, decimals, kMagnitudes[magnitude]);
}

std::string format_bytes(int64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 100 ? 0 : 1, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const int64_t days = total / 86400, hours = total / 3600 % 24, minutes = total / 60 % 60, rest = total % 60;
  if (days > 0) return fmt::format("{}d {:02}h", days, hours);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

}  // namespace nf
