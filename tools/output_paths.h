// Where a program will write, looked at before it spends time on anything else.
#pragma once

#include <filesystem>
#include <string_view>

namespace nf {

// Throws Error `WHO: PATH: …` unless the folder can be written in; `who` is the flag that named it. A folder
// that is not there is made for the test, and removed again.
void check_output_folder(const std::filesystem::path& folder, std::string_view who);

// The same for a file, which must not be a folder itself.
void check_output_file(const std::filesystem::path& file, std::string_view who);

// The same for a file that is not there yet.
void check_new_file(const std::filesystem::path& file, std::string_view who);

// The same for the folder that the environment variable NF_DUMP names, if it is set.
void check_dump_folder();

}  // namespace nf
