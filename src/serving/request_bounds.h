// What a single request may ask for.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "serving/request.h"

namespace espalier {

// Whatever the limit.
struct RequestBounds {
  int64_t cells = 0;  // prompt + answer
  int32_t n_vocab = 0;
};

// Under the present limit.
struct RequestRoom {
  uint64_t planned_bytes = 0;         // the limit that plans are made for
  int64_t largest_request_cells = 0;  // prompt + answer for which there is a plan if nobody else runs
};

// kInvalidArgument, with the numbers, if prompt and max_tokens exceed the bounds or the prompt has a token that the
// model does not have; kOutOfBudget if there is no room for them now. REQUIRES: max_tokens >= 0.
Status CheckRequest(const LoopRequest& request, const RequestBounds& bounds, const RequestRoom& room);

}  // namespace espalier
