// Any bytes as a Parquet file: footer, pages, codecs and encodings.
#include "tests/fuzz/fuzz.h"
#include "tools/data/parquet.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = folder().write("input.parquet", text_of(data, size));
  accepts([&] {
    const ParquetFile file(path);
    for (const parquet::Column& column : file.columns()) {
      if (column.nested || !column.binary) continue;
      int64_t last = 0, left = 1 << 20;  // a few bytes may say a lot
      accepts([&] {
        file.read_strings(column.name, [&](int64_t row, std::string_view text) {
          expect(row > last && row <= file.rows(), "rows ascend and are in the file");
          last = row;
          left -= 1 + static_cast<int64_t>(text.size());
          require(left > 0, "enough");
        });
      });
    }
  });
  return 0;
}
