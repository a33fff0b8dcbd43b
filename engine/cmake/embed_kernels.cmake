# Writes OUTPUT, a C++ source that defines nf::cuda::kernel_files() with the files of FOLDER (see cuda/kernel_files.h).
# A literal may not grow without bound, so each file is a concatenation of one per block of lines.

cmake_minimum_required(VERSION 3.24)
file(GLOB files ${FOLDER}/*.cuh ${FOLDER}/*.h)
list(SORT files)
set(rows "")
set(count 0)
foreach(file IN LISTS files)
  cmake_path(GET file FILENAME name)
  file(READ ${file} text)
  string(LENGTH "${text}" length)
  set(literals "")
  set(start 0)
  while(start LESS length)
    string(SUBSTRING "${text}" ${start} 8000 part)
    string(APPEND literals " R\"nf(${part})nf\"")
    math(EXPR start "${start} + 8000")
  endwhile()
  string(APPEND rows "    {\"${name}\",${literals}},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT "#include <array>\n
#include \"cuda/kernel_files.h\"\n
namespace nf::cuda {\n
std::span<const KernelFile> kernel_files() {
  static constexpr std::array<KernelFile, ${count}> files = {{
@rows@  }};
  return files;
}\n
}  // namespace nf::cuda\n")
