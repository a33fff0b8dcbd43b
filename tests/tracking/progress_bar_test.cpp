#include "tools/tracking/progress_bar.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "tools/tokenizer/utf8.h"

using namespace nf;

namespace {

// A terminal as a test sees it: rows of characters, with the few escape codes the bar uses.
struct Screen {
  int width = 80;
  std::vector<std::u32string> rows = {U""};
  size_t row = 0, column = 0;
  int writes = 0;
  std::string raw = {};

  Terminal terminal(bool interactive, bool color = false, bool unicode = true) {
    return {[this](std::string_view bytes) { show(bytes); }, [this] { return width; }, interactive, color,
            unicode};
  }

  void show(std::string_view bytes) {
    ++writes;
    raw += bytes;
    while (!bytes.empty()) {
      if (bytes.starts_with("\x1b[")) {
        const size_t end = bytes.find_first_of("mKAJ");
        REQUIRE(end != std::string_view::npos);
        escape(bytes[end], bytes.substr(2, end - 2));
        bytes.remove_prefix(end + 1);
        continue;
      }
      const Utf8Character character = first_character(bytes);
      REQUIRE(character.kind == Utf8Character::Kind::whole);
      put(character.code_point);
      bytes.remove_prefix(character.length);
    }
  }

  void escape(char code, std::string_view argument) {
    if (code == 'K' || code == 'J') rows[row].resize(std::min(rows[row].size(), column));
    if (code == 'J') rows.resize(row + 1);
    if (code == 'A') row -= static_cast<size_t>(std::stoi(std::string(argument)));
  }

  void put(char32_t character) {
    if (character == U'\r') {
      column = 0;
    } else if (character == U'\n' || column == static_cast<size_t>(width)) {
      ++row;
      column = 0;
      if (row == rows.size()) rows.emplace_back();
      if (character != U'\n') put(character);
    } else {
      if (rows[row].size() <= column) rows[row].resize(column + 1, U' ');
      rows[row][column++] = character;
    }
  }

  // The window becomes narrower, and what is on it wraps as terminals do it.
  void shrink(int columns) {
    width = columns;
    const std::vector<std::u32string> old = std::exchange(rows, {U""});
    row = column = 0;
    for (size_t i = 0; i < old.size(); ++i) {
      for (const char32_t c : old[i]) put(c);
      if (i + 1 < old.size()) put(U'\n');
    }
  }

  std::string text(size_t i) const {
    std::string out;
    for (const char32_t c : rows.at(i)) append_utf8(out, c);
    return out;
  }
};

struct Clock {
  double now = 1000;
  ProgressBarOptions options() {
    return {.redraw_seconds = 0.1, .line_seconds = 10, .clock = [this] { return now; }};
  }
};

Progress full(int64_t step) {
  return {.step = step, .loss = 1.83421, .tokens_per_second = 12345, .peak_share = 0.414};
}

}  // namespace

TEST_CASE("progress bar: everything at 100 columns") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBar bar(screen.terminal(true), 20000, clock.options());
  bar.update(full(0));
  clock.now += 50;
  bar.update(full(5000));
  CHECK(
      screen.text(0) ==
      "step  5000/20000  ━━━━━━╸───────────────────   25%  loss 1.8342  12.3k tok/s  41% of peak  eta 2:30");
  CHECK(screen.rows[0].size() == 99);
}

TEST_CASE("progress bar: one row at any width, with colours or without, in Unicode or not") {
  for (int width = 1; width <= 140; ++width) {
    for (const bool color : {false, true}) {
      for (const bool unicode : {false, true}) {
        Screen screen{.width = width};
        Clock clock;
        ProgressBar bar(screen.terminal(true, color, unicode), 20000, clock.options());
        for (int64_t step = 0; step <= 20000; step += 2500) {
          clock.now += 1;
          bar.update(full(step));
        }
        CHECK(screen.rows.size() == 1);
        CHECK(screen.rows[0].size() < static_cast<size_t>(std::max(2, width)));
        const bool painted = screen.raw.find("\x1b[36m") != std::string::npos;
        if (painted) CHECK((color && unicode));
        if (color && unicode && width == 140) CHECK(painted);
        bool ascii = true;
        for (const char c : screen.raw) ascii &= static_cast<uint8_t>(c) < 0x80;
        if (!unicode) CHECK(ascii);
        bar.finish();
        CHECK(screen.rows.size() == 2);
      }
    }
  }
}

TEST_CASE("progress bar: the least important goes first") {
  const auto at = [](int width) {
    Screen screen{.width = width};
    Clock clock;
    ProgressBar bar(screen.terminal(true), 100, clock.options());
    bar.update(full(0));
    clock.now += 5;
    bar.update(full(50));
    return screen.text(0);
  };
  CHECK(at(80) == "step  50/100  ━━━━━─────   50%  loss 1.8342  12.3k tok/s  41% of peak  eta 0:05");
  CHECK(at(77) == "step  50/100   50%  loss 1.8342  12.3k tok/s  41% of peak  eta 0:05");
  CHECK(at(67) == "step  50/100  ━━━━━─────   50%  loss 1.8342  12.3k tok/s  eta 0:05");
  CHECK(at(54) == "step  50/100  loss 1.8342  12.3k tok/s  eta 0:05");
  CHECK(at(48) == "step  50/100  ━━━━━─────  loss 1.8342  eta 0:05");
  CHECK(at(35) == "step  50/100  loss 1.8342");
  CHECK(at(14) == "step  50/100");
  CHECK(at(8) == "step  5");
}

TEST_CASE("progress bar: redrawn at most every tenth of a second, and the last state is shown") {
  Screen screen;
  Clock clock;
  ProgressBar bar(screen.terminal(true), 1000, clock.options());
  for (int64_t step = 1; step <= 1000; ++step) {
    clock.now += 0.001;
    bar.update({.step = step});
  }
  CHECK(screen.writes <= 11);
  bar.finish();
  CHECK(screen.rows.size() == 2);
  CHECK(screen.text(0).starts_with("step 1000/1000"));
  CHECK(screen.text(0).find("100%") != std::string::npos);
  CHECK(screen.text(0).find("eta") == std::string::npos);
  const int writes = screen.writes;
  bar.finish();
  CHECK(screen.writes == writes);
}

TEST_CASE("progress bar: messages stand above it") {
  Screen screen;
  Clock clock;
  ProgressBar bar(screen.terminal(true), 10, clock.options());
  bar.print("before the first");
  bar.update({.step = 3});
  bar.print("validation loss 1.5");
  CHECK(screen.text(0) == "before the first");
  CHECK(screen.text(1) == "validation loss 1.5");
  CHECK(screen.text(2).starts_with("step  3/10"));
  CHECK(screen.rows.size() == 3);
}

TEST_CASE("progress bar: a window that becomes narrower leaves no rests") {
  for (int width = 5; width < 80; ++width) {
    Screen screen{.width = 100};
    Clock clock;
    ProgressBar bar(screen.terminal(true), 100, clock.options());
    bar.print("above");
    bar.update(full(10));
    screen.shrink(width);
    const size_t above = (5 + static_cast<size_t>(width) - 1) / static_cast<size_t>(width);
    clock.now += 1;
    bar.update(full(20));
    CHECK(screen.rows.size() == above + 1);
    CHECK(screen.text(above).starts_with(
        std::string("step  20/100").substr(0, static_cast<size_t>(width) - 1)));
  }
}

TEST_CASE("progress bar: plain lines now and then where nothing can be redrawn") {
  Screen screen{.width = 20};
  Clock clock;
  {
    ProgressBar bar(screen.terminal(false, false), 100, clock.options());
    for (int64_t step = 1; step <= 25; ++step) {
      clock.now += 1;
      bar.update({.step = step, .loss = 2.5, .tokens_per_second = 900});
      if (step == 15) bar.print("saved");
    }
  }
  CHECK(screen.raw ==
        "step   1/100    1%  loss 2.5000  900 tok/s\n"
        "step  11/100   11%  loss 2.5000  900 tok/s  eta 1:29\n"
        "saved\n"
        "step  21/100   21%  loss 2.5000  900 tok/s  eta 1:19\n"
        "step  25/100   25%  loss 2.5000  900 tok/s  eta 1:15\n");
}

TEST_CASE("progress bar: a resumed run counts only its own steps for the speed") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBar bar(screen.terminal(true), 1000, clock.options());
  bar.update({.step = 901});
  clock.now += 9;
  bar.update({.step = 910});
  CHECK(screen.text(0).ends_with("eta 1:30"));
}

TEST_CASE("progress bar: the slow first step says nothing about the others") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBar bar(screen.terminal(true), 100, clock.options());
  clock.now += 60;
  bar.update(full(1));
  CHECK(screen.text(0).find("eta") == std::string::npos);
  clock.now += 1;
  bar.update(full(2));
  CHECK(screen.text(0).ends_with("eta 1:38"));
}

TEST_CASE("progress bar: less than a hundredth of the peak is not shown; units have names") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBarOptions options = clock.options();
  options.unit = "batch";
  ProgressBar bar(screen.terminal(true), 0, options);
  bar.update({.step = 1, .peak_share = 0.0099});
  CHECK(screen.text(0) == "batch 1");
  clock.now += 1;
  bar.update({.step = 2, .peak_share = 0.01});
  CHECK(screen.text(0) == "batch 2  1% of peak");
}

TEST_CASE("progress bar: the speed follows a change within a minute or two") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBar bar(screen.terminal(true), 2000, clock.options());
  for (int64_t step = 1; step <= 1000; ++step) {
    clock.now += step <= 900 ? 0.5 : 2;  // 200 s at the new speed
    bar.update({.step = step});
  }
  CHECK(screen.text(0).ends_with("eta 33:13"));  // 2000 s, less what is left of the faster past
}

TEST_CASE("progress bar: numbers that are not, totals that are unknown, steps that go back") {
  Screen screen{.width = 100};
  Clock clock;
  ProgressBar bar(screen.terminal(true), 0, clock.options());
  clock.now += 1;
  bar.update({.step = 7, .loss = std::numeric_limits<double>::quiet_NaN(), .tokens_per_second = 0});
  CHECK(screen.text(0) == "step 7  loss nan  0 tok/s");
  clock.now += 1;
  bar.update({.step = 3});
  CHECK(screen.text(0) == "step 3");
}

TEST_CASE("progress bar: without an update it leaves no trace") {
  Screen screen;
  { ProgressBar bar(screen.terminal(true), 10); }
  CHECK(screen.raw.empty());
}
