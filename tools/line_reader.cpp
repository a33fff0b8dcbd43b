#include "tools/line_reader.h"

#include <cstdio>
#include <iostream>

#ifdef NF_LIBEDIT
#include <editline/readline.h>

#include <clocale>
#include <cstdlib>
#include <memory>
#endif

namespace nf {

#ifdef NF_LIBEDIT

// libedit takes the width of characters from the locale.
LineReader::LineReader(std::string prompt) : prompt_(std::move(prompt)) { std::setlocale(LC_CTYPE, ""); }

std::optional<std::string> LineReader::read() {
  const std::unique_ptr<char, decltype(&std::free)> line(::readline(prompt_.c_str()), std::free);
  if (!line) return std::nullopt;
  if (*line) ::add_history(line.get());
  return std::string(line.get());
}

#else

LineReader::LineReader(std::string prompt) : prompt_(std::move(prompt)) {}

std::optional<std::string> LineReader::read() {
  std::fputs(prompt_.c_str(), stdout);
  std::fflush(stdout);
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

#endif

}  // namespace nf
