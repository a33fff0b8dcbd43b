// The smallest program that embeds the engine: it sees the public headers only and links the installed
// library.
#include <nf/error.h>
#include <nf/shape.h>

#include <cstdio>

int main() {
  const nf::Shape shape{2, 3};
  std::puts(nf::to_string(shape).c_str());
  return shape.elements() == 6 ? 0 : 1;
}
