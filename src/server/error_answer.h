// Errors as HTTP responses.
#pragma once

#include "server/api_error.h"
#include "server/http_server.h"

namespace espalier {

// With Retry-After where trying again may help (429, 503).
HttpResponse ErrorAnswer(const ApiError& error);

}  // namespace espalier
