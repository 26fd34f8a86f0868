// Errors as HTTP responses.
#pragma once

#include "server/api_error.h"
#include "server/http_server.h"

namespace espalier {

// With Retry-After where trying again may help (429, 503).
HttpResponse ErrorAnswer(const ApiError& error);

// HttpServerOptions::error_response: the answer to what never became a request, and so named no origin. Browsers of any
// may read it, as everything here.
HttpResponse HttpErrorAnswer(int status, const std::string& reason);

}  // namespace espalier
