// http.h over libcurl.
#include <curl/curl.h>
#include <nf/error.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <memory>

#include "tools/data/http.h"

namespace nf {
namespace {

constexpr size_t kLargestBody = size_t{64} << 20;
constexpr long kConnectSeconds = 20, kStalledSeconds = 60;

struct Transfer {
  const HttpRequest& request;
  CURL* curl;
  HttpResponse response;
  std::exception_ptr error;
};

int status_of(CURL* curl) {
  long status = 0;
  ::curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

size_t take_body(char* bytes, size_t, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  try {
    const int status = status_of(transfer.curl);
    if (transfer.request.sink && (status == 200 || status == 206)) {
      transfer.request.sink(status, {bytes, count});
    } else {
      require(transfer.response.body.size() + count <= kLargestBody, "hub: an answer of more than {} bytes",
              kLargestBody);
      transfer.response.body.append(bytes, count);
    }
  } catch (...) {
    transfer.error = std::current_exception();
    return 0;  // ends the transfer
  }
  return count;
}

size_t take_header(char* bytes, size_t, size_t count, void* user) {
  std::string_view line(bytes, count);
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return count;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  std::string_view value = line.substr(colon + 1);
  const size_t begin = value.find_first_not_of(" \t"), end = value.find_last_not_of(" \t\r\n");
  value = begin == std::string_view::npos || end == std::string_view::npos || end < begin
              ? std::string_view()
              : value.substr(begin, end - begin + 1);
  static_cast<Transfer*>(user)->response.headers[name] = value;
  return count;
}

}  // namespace

HttpResponse http_get(const HttpRequest& request) {
  static const bool ready = ::curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  require(ready, "hub: libcurl cannot start");
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(::curl_easy_init(), &::curl_easy_cleanup);
  require(curl != nullptr, "hub: out of memory");
  Transfer transfer{request, curl.get(), {}, nullptr};
  const auto set = [&](CURLoption option, auto value) { ::curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_USERAGENT, "nanoformer");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, kStalledSeconds);
  set(CURLOPT_WRITEFUNCTION, &take_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_HEADERFUNCTION, &take_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
  const std::string range = fmt::format("{}-", request.first_byte);
  if (request.first_byte > 0) set(CURLOPT_RANGE, range.c_str());
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, &::curl_slist_free_all);
  if (!request.token.empty()) {
    headers.reset(::curl_slist_append(nullptr, ("Authorization: Bearer " + request.token).c_str()));
    set(CURLOPT_HTTPHEADER, headers.get());
  }
  const CURLcode code = ::curl_easy_perform(curl.get());
  if (transfer.error) std::rethrow_exception(transfer.error);
  transfer.response.status = status_of(curl.get());
  if (code != CURLE_OK) transfer.response.failure = ::curl_easy_strerror(code);
  return transfer.response;
}

}  // namespace nf
