// What took time to find out, kept on disk for the next run: machine code of kernels, algorithms of products.
//
// The folder is nanoformer/cuda in XDG_CACHE_HOME, or in ~/.cache; NF_CUDA_CACHE names another, and "off"
// none. A file's name holds the hash of everything that decides its content, and it is written as a whole.
// None is ever needed: a cache that cannot be read or written costs time alone.
#pragma once

#include <string>

namespace nf::cuda {

bool has_cache();

// The content, or nothing when there is no such file.
std::string read_cached(const std::string& name);
void write_cached(const std::string& name, const std::string& content);

}  // namespace nf::cuda
