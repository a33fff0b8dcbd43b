#include "tools/tracking/terminal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <string>

using namespace nf;

namespace {

// Environment variables for one scope; nullopt: not set.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::optional<std::string>>& values) {
    for (const auto& [name, value] : values) {
      const char* old = std::getenv(name.c_str());
      before_[name] = old ? std::optional<std::string>(old) : std::nullopt;
      set(name, value);
    }
  }
  ~Environment() {
    for (const auto& [name, value] : before_) set(name, value);
  }

 private:
  static void set(const std::string& name, const std::optional<std::string>& value) {
    if (value)
      ::setenv(name.c_str(), value->c_str(), 1);
    else
      ::unsetenv(name.c_str());
  }
  std::map<std::string, std::optional<std::string>> before_;
};

// Standard error is something else for one scope.
class StandardErrorTo {
 public:
  explicit StandardErrorTo(int descriptor) : before_(::dup(STDERR_FILENO)) {
    ::dup2(descriptor, STDERR_FILENO);
  }
  ~StandardErrorTo() {
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
  }

 private:
  int before_;
};

}  // namespace

TEST_CASE("terminal: a window, its width, and what the environment says of it") {
  const int control = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (control < 0 || ::grantpt(control) != 0 || ::unlockpt(control) != 0)
    return;  // a machine without terminals
  const int window = ::open(::ptsname(control), O_RDWR | O_NOCTTY);
  if (window >= 0) {
    const StandardErrorTo redirected(window);
    const std::map<std::string, std::optional<std::string>> usual = {{"TERM", "xterm"},
                                                                     {"NO_COLOR", std::nullopt},
                                                                     {"LC_ALL", std::nullopt},
                                                                     {"LC_CTYPE", std::nullopt},
                                                                     {"LANG", "C.UTF-8"}};
    const auto with = [&](const std::string& name, const std::string& value) {
      auto values = usual;
      values[name] = value;
      const Environment environment(values);
      return standard_error();
    };
    const Terminal terminal = with("LANG", "en_US.UTF-8");
    CHECK(terminal.interactive);
    CHECK(terminal.color);
    CHECK(terminal.unicode);
    CHECK_FALSE(with("TERM", "dumb").interactive);
    CHECK_FALSE(with("TERM", "dumb").color);
    CHECK_FALSE(with("NO_COLOR", "1").color);
    CHECK(with("NO_COLOR", "").color);
    CHECK(with("NO_COLOR", "1").interactive);
    CHECK_FALSE(with("LC_ALL", "de_DE.ISO-8859-1").unicode);
    CHECK(with("LANG", "C").unicode);

    winsize size{};
    size.ws_col = 123;
    REQUIRE(::ioctl(window, TIOCSWINSZ, &size) == 0);
    CHECK(terminal.width() == 123);
    size.ws_col = 0;  // not known
    REQUIRE(::ioctl(window, TIOCSWINSZ, &size) == 0);
    CHECK(terminal.width() == 80);

    terminal.write("hello");
    char shown[6] = {};
    CHECK(::read(control, shown, 5) == 5);
    CHECK(std::string(shown) == "hello");
    ::close(window);
  }
  ::close(control);
}

TEST_CASE("terminal: a pipe is not interactive") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  {
    const StandardErrorTo redirected(ends[1]);
    const Environment environment(std::map<std::string, std::optional<std::string>>{{"TERM", "xterm"}});
    const Terminal terminal = standard_error();
    CHECK_FALSE(terminal.interactive);
    CHECK_FALSE(terminal.color);
    CHECK(terminal.width() == 80);
    terminal.write("x");
  }
  char byte = 0;
  CHECK(::read(ends[0], &byte, 1) == 1);
  CHECK(byte == 'x');
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("terminal: quantities and durations") {
  CHECK(format_quantity(0) == "0");
  CHECK(format_quantity(4) == "4");
  CHECK(format_quantity(1.234) == "1.23");
  CHECK(format_quantity(9.996) == "10");
  CHECK(format_quantity(812.4) == "812");
  CHECK(format_quantity(999.4) == "999");
  CHECK(format_quantity(999.6) == "1.00k");
  CHECK(format_quantity(12345) == "12.3k");
  CHECK(format_quantity(1.24e6) == "1.24M");
  CHECK(format_quantity(99.96e6) == "100M");
  CHECK(format_quantity(-1500) == "-1.50k");
  CHECK(format_quantity(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(6.6) == "0:07");
  CHECK(format_duration(754) == "12:34");
  CHECK(format_duration(3600 * 3 + 131) == "3:02:11");
  CHECK(format_duration(86400 * 4 + 3 * 3600) == "4d 03h");
  CHECK(format_duration(-1) == "?");
  CHECK(format_duration(std::numeric_limits<double>::quiet_NaN()) == "?");
}
