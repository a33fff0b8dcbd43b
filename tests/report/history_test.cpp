#include "tools/report/history.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "tests/support/folder.h"
#include "tools/tracking/jsonl_tracker.h"

using namespace nf;

namespace {

void log_run(Tracker& tracker) {
  tracker.log(0, std::array{Metric{"val_loss", 5.5}});
  tracker.log(1, std::array{Metric{"loss", 5.4}, Metric{"tokens", 64}, Metric{"seconds", 0.5}});
  tracker.log(2, std::array{Metric{"loss", 5.0}, Metric{"tokens", 128}, Metric{"seconds", 0.75},
                            Metric{"memory", 1e6}});
  tracker.log(2, std::array{Metric{"val_loss", 5.1}});
}

}  // namespace

TEST_CASE("history: training and validation stand on the same axes") {
  RunHistory history;
  log_run(history);
  CHECK(history.step() == 2);
  CHECK(history.tokens() == 128);
  CHECK(history.seconds() == 0.75);
  CHECK(history.training().column("loss") == std::vector<double>{5.4, 5.0});
  CHECK(history.training().column("seconds") == std::vector<double>{0.5, 0.75});
  CHECK(std::isnan(history.training().column("lr")[0]));
  CHECK(history.validation().column("val_loss") == std::vector<double>{5.5, 5.1});
  CHECK(history.validation().column("tokens") == std::vector<double>{0, 128});
}

TEST_CASE("history: what metrics.jsonl holds is what was logged") {
  const Folder folder;
  const auto file = folder.path / "metrics.jsonl";
  JsonlTracker tracker(file, std::nullopt);
  log_run(tracker);
  tracker.close();
  RunHistory logged, read;
  log_run(logged);
  read.read(file);
  CHECK(read.training().to_json() == logged.training().to_json());
  CHECK(read.validation().to_json() == logged.validation().to_json());
  CHECK(read.seconds() == logged.seconds());
}
