// What the screen can do, asked once, so that everything that draws on it can be tested without one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace nf {

struct Terminal {
  std::function<void(std::string_view)> write;  // shows bytes at once
  std::function<int()> width;                   // columns now; the window may change
  bool interactive = false;                     // lines can be redrawn
  bool color = false;
  bool unicode = true;
};

// The terminal behind standard error. Not interactive when that is a file or pipe or TERM is "dumb"; no
// colour when not interactive or NO_COLOR is set (no-color.org); no Unicode when the locale names another
// charset.
Terminal standard_error();

// "812", "12.3k", "1.24M": three digits and a magnitude; a small whole number as it is.
std::string format_quantity(double value);

// "512 B", "3.4 MiB".
std::string format_bytes(int64_t bytes);

// "0:07", "12:34", "3:02:11", "4d 03h".
std::string format_duration(double seconds);

}  // namespace nf
