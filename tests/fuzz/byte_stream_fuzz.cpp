// Any bytes as a packed file, read in small and in large steps.
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/data/byte_stream.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMost = size_t{1} << 22;  // a few bytes may unpack to many
  for (const char* name : {"input.gz", "input.zst"}) {
    const std::string path = folder().write(name, text_of(data, size));
    std::string all[2];
    bool accepted[2];
    for (const int way : {0, 1}) {
      std::vector<char> block(way == 0 ? 61 : 1 << 16);
      accepted[way] = accepts([&] {
        const auto stream = open_stream(path);
        while (all[way].size() < kMost) {
          const size_t count = stream->read(block);
          all[way].append(block.data(), count);
          if (count == 0) break;
        }
      });
    }
    // Of a damaged file the small steps have handed out more before the error.
    if (accepted[0] && accepted[1])
      expect(all[0].substr(0, kMost) == all[1].substr(0, kMost), "the steps change nothing");
    expect(accepted[0] == accepted[1] || all[0].size() >= kMost || all[1].size() >= kMost,
           "the steps decide nothing");
  }
  return 0;
}
