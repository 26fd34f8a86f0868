// The head of an answer, as bytes.
#pragma once

#include <cstddef>
#include <string>

#include "server/http_server.h"

namespace espalier {

struct HttpHeadForm {
  enum class Body {
    kSized,       // Content-Length
    kChunked,     // Transfer-Encoding: chunked
    kUntilClose,  // HTTP/1.0, length unknown
  } body = Body::kSized;
  size_t length = 0;  // for kSized; also with HEAD, where no body follows
  bool keep_alive = true;
  bool http10 = false;
};

// Whether an answer of that status has a body at all (1xx, 204 and 304 have none).
bool HttpStatusHasBody(int status);

// Status line and headers up to the empty line. The answer's body is not looked at. Headers that say how the body ends
// or what becomes of the connection are ours: the answer's own are left out; line breaks in values become spaces.
std::string FormatHttpHead(const HttpResponse& response, const HttpHeadForm& form);

// ASCII only, as names of headers are compared.
bool SameHttpName(std::string_view a, std::string_view b);

}  // namespace espalier
