// One HTTP request. Compiled against libcurl where it is installed; elsewhere every request is an Error that
// says so.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace nf {

struct HttpRequest {
  std::string url;         // http or https
  std::string token = {};  // sent as "Authorization: Bearer"; empty: nothing is
  int64_t first_byte = 0;  // above 0: asks for the rest of a file, from this byte on
  // Takes the body of an answer of status 200 or 206, as it comes; without it the body is kept. What it
  // throws ends the request and passes through. `status` is the answer's.
  std::function<void(int status, std::string_view bytes)> sink = {};
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // at most 64 MiB
  std::string failure;  // why the connection failed or broke off; the rest is what came before
};

// A GET. Redirections are not followed: whoever asks decides whom the token is for. Throws Error where there
// is no libcurl.
HttpResponse http_get(const HttpRequest& request);

}  // namespace nf
