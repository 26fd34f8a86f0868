#include "serving/request_bounds.h"

#include <fmt/format.h>

#include <algorithm>

#include "serving/work.h"

namespace espalier {

Status CheckRequest(const LoopRequest& request, const RequestBounds& bounds, const RequestRoom& room) {
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  // Each on its own first: max_tokens may be so many that the sum overflows.
  if (prompt_tokens > bounds.cells || request.max_tokens > bounds.cells ||
      Work::CellsOf(prompt_tokens, request.max_tokens) > bounds.cells) {
    return InvalidArgument(fmt::format("prompt of {} tokens and {} to generate: the context holds {}", prompt_tokens,
                                       request.max_tokens, bounds.cells));
  }
  // In a batch it would make the engine refuse everybody else's tokens, too.
  const auto unknown = std::find_if(request.prompt.begin(), request.prompt.end(),
                                    [&](int32_t token) { return token < 0 || token >= bounds.n_vocab; });
  if (unknown != request.prompt.end()) {
    return InvalidArgument(fmt::format("token {} of the prompt is {}: expected 0 to {}",
                                       unknown - request.prompt.begin(), *unknown, bounds.n_vocab - 1));
  }
  const int64_t cells = Work::CellsOf(prompt_tokens, request.max_tokens);
  if (cells > room.largest_request_cells) {
    return OutOfBudget(fmt::format(
        "prompt of {} tokens and {} to generate need {} KV cells: the memory budget of {} bytes has room for {}",
        prompt_tokens, request.max_tokens, cells, room.planned_bytes, room.largest_request_cells));
  }
  return Status::Ok();
}

}  // namespace espalier
