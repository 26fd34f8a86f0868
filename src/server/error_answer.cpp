#include "server/error_answer.h"

namespace espalier {

HttpResponse ErrorAnswer(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = ErrorBody(error);
  if (error.status == 429 || error.status == 503) {
    response.headers.emplace_back("Retry-After", "1");
  }
  return response;
}

HttpResponse HttpErrorAnswer(int status, const std::string& reason) {
  ApiError error = status >= 500 ? UnavailableError(reason) : InvalidRequest("", reason);
  error.status = status;
  HttpResponse response = ErrorAnswer(error);
  response.headers.emplace_back("Access-Control-Allow-Origin", "*");
  return response;
}

}  // namespace espalier
