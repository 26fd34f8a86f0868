// Assertions for programmers' mistakes only; never reachable from a file, a flag or a request.
#pragma once

#include <cstdio>
#include <cstdlib>

#define ESPALIER_CHECK(condition)                                                          \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      std::fprintf(stderr, "%s:%d: internal error: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)
