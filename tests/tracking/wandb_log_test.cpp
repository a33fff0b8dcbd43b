#include "tools/tracking/wandb_log.h"

#include <doctest/doctest.h>

#include <vector>

using namespace nf;
using namespace std::string_literals;

namespace {

std::string log_of(const std::vector<std::string>& records) {
  std::string log = wandb_log_header();
  for (const std::string& record : records) log += wandb_log_record(record, static_cast<int64_t>(log.size()));
  return log;
}

std::vector<std::string> records_of(std::string_view log, int64_t* end = nullptr) {
  std::vector<std::string> records;
  const int64_t read = read_wandb_log(log, [&](std::string_view record, int64_t) {
    records.emplace_back(record);
    return true;
  });
  if (end) *end = read;
  return records;
}

}  // namespace

TEST_CASE("wandb log: the head, and a record with its checksum") {
  CHECK(wandb_log_header() == ":W&B\xe1\xbe\0"s);
  // Python: zlib.crc32(b"\x01abc") = 0x539d20a9.
  CHECK(wandb_log_record("abc", 7) ==
        "\xa9\x20\x9d\x53\x03\0\x01"
        "abc"s);
}

TEST_CASE("wandb log: records of every size around the blocks' ends come back") {
  for (const size_t size : {32768 - 14, 32768 - 15, 32768 - 20, 32768 - 21, 32768 - 22, 32768, 100'000}) {
    CAPTURE(size);
    const std::vector<std::string> records{std::string(size, 'x'), "", std::string(40'000, 'y'), "last"};
    const std::string log = log_of(records);
    int64_t end = 0;
    CHECK(records_of(log, &end) == records);
    CHECK(end == static_cast<int64_t>(log.size()));
  }
}

TEST_CASE("wandb log: a damaged or cut log ends with the last whole record, and goes on there") {
  const std::vector<std::string> records{"first", std::string(70'000, 'x'), "third"};
  const std::string log = log_of(records);
  const auto first_end = static_cast<int64_t>(log_of({"first"}).size());
  for (const size_t cut : {size_t(20), size_t(32768), size_t(40'000), size_t(70'000)}) {
    int64_t end = 0;
    CHECK(records_of(std::string_view(log).substr(0, cut), &end) == std::vector<std::string>{"first"});
    CHECK(end == first_end);
  }
  std::string damaged = log;
  damaged[50'000] = 'z';
  int64_t end = 0;
  CHECK(records_of(damaged, &end).size() == 1);
  std::string mended = damaged.substr(0, static_cast<size_t>(end));
  mended += wandb_log_record("other", end);
  CHECK(records_of(mended) == std::vector<std::string>{"first", "other"});
  CHECK(records_of("something else", &end).empty());
  CHECK(end == 0);
}

TEST_CASE("wandb log: a reader may stop") {
  int64_t before = -1;
  const int64_t end = read_wandb_log(log_of({"a", "b", "c"}), [&](std::string_view record, int64_t at) {
    before = at;
    return record != "b";
  });
  CHECK(end == before);
  CHECK(end == static_cast<int64_t>(log_of({"a"}).size()));
}
