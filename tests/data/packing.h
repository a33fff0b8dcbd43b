// Packs bytes as gzip and zstd do, for tests.
#pragma once

#include <string>
#include <string_view>

namespace nf {

std::string gzip(std::string_view bytes);
std::string zstd(std::string_view bytes);

}  // namespace nf
