// http.h where libcurl is not installed.
#include <nf/error.h>

#include "tools/data/http.h"

namespace nf {

HttpResponse http_get(const HttpRequest& request) {
  fail(
      "hub: cannot fetch {}: this program was built without libcurl; install it (Debian: "
      "libcurl4-openssl-dev) and build again, or fetch the files yourself and name them with --data",
      request.url);
}

}  // namespace nf
