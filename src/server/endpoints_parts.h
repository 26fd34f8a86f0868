// What the files of the endpoints share.
#pragma once

#include <utility>

#include "json/json.h"
#include "server/http_server.h"

namespace espalier {

inline HttpResponse JsonAnswer(const Json& value, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = Dump(value);
  return response;
}

}  // namespace espalier
