// From texts to the tokens that the model is asked about, cut the way lm-evaluation-harness cuts them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/tasks.h"
#include "text/tokenizer.h"

namespace espalier {

struct EncodedRequest {
  std::vector<int32_t> tokens;  // context, then continuation. The model reads all but the last
  int64_t n_context = 0;        // at least 1
  bool truncated = false;       // tokens of the context were left out
};

struct EncodedItem {
  std::vector<EncodedRequest> requests;
};

// The harness's rules:
//  * White space at the end of the context moves to the continuation (words begin with their space in most
//    vocabularies); white space is Unicode's, as for Python's rstrip.
//  * Context and continuation are encoded as one text, with BOS in front where the model wants it, unless the text
//    begins with BOS itself; special tokens are recognised in the text. What the context alone encodes to, with BOS,
//    counts as context, and the continuation is what the whole text has beyond as many tokens.
//  * Without a context BOS (EOS where there is none) takes its place, unless the continuation begins with it.
//  * A request reads at most `max_inputs` tokens; what is more is left out at the beginning.
// Fails with kInvalidArgument if the continuation has no token of its own or more than `max_inputs`, kUnsupported if a
// context is needed and the vocabulary has neither BOS nor EOS.
Result<EncodedRequest> EncodeRequest(const Tokenizer& tokenizer, const TaskRequest& request, int64_t max_inputs);

// All requests of all items. The error names set, task, item and choice, counted from 1 as in the set.
Result<std::vector<EncodedItem>> EncodeItems(const Tokenizer& tokenizer, std::span<const TaskItem> items,
                                             int64_t max_inputs);

}  // namespace espalier
