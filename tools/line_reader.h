// Lines typed by a person.
#pragma once

#include <optional>
#include <string>

namespace nf {

// Reads standard input. On a terminal, with libedit where the build found it: the line can be edited, and the
// arrow keys bring earlier ones back. One at a time.
class LineReader {
 public:
  explicit LineReader(std::string prompt);

  // The next line, without its end; nullopt at the end of the input.
  std::optional<std::string> read();

 private:
  std::string prompt_;
};

}  // namespace nf
